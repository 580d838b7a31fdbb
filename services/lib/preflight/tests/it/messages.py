"""Messages made by Python's email package: a JSON object a line, {"name", "message" (base64), "words", "links"}.

`words`: the message says "kostenlos" or one of its translations where it is looked for; `links`: how many it has.
"""

import base64
import json
from email.message import EmailMessage
from email.policy import SMTP

WORDS = {
    "utf-8": "Ein größeres Päckchen — völlig Kostenlos für Sie!",
    "iso-8859-1": "Ein größeres Päckchen, völlig Kostenlos für Sie!",
    "windows-1252": "Ein größeres Päckchen – völlig „Kostenlos“ für Sie!",
    "koi8-r": "Подарок совершенно Бесплатно для вас!",
    "shift_jis": "これは完全に無料です",
    "us-ascii": "A parcel, entirely kostenlos for you!",
}


def message(subject="Neues"):
    made = EmailMessage(policy=SMTP)
    made["From"] = "Ä <a@acme.example>"
    made["To"] = "b@dest.example"
    made["Subject"] = subject
    return made


def show(name, made, words, links=0):
    octets = base64.b64encode(made.as_bytes()).decode()
    print(json.dumps({"name": name, "message": octets, "words": words, "links": links}))


for charset, text in WORDS.items():
    for cte in ("7bit", "8bit", "quoted-printable", "base64"):
        if cte == "7bit" and charset != "us-ascii":
            continue
        made = message()
        made.set_content(text, charset=charset, cte=cte)
        show(f"{charset} {cte}", made, True)

made = message()
made.set_content("Alles gut: https://a.example/ und https://b.example/\n" * 40)
show("links", made, False, 80)

long = "Das ist eine lange Betreffzeile mit Umlauten äöü, und alles darin ist ganz und gar kostenlos für alle"
made = message(long)
made.set_content("x")
show("subject", made, True)

made = message()
made.set_content("Hallo, hier ist nichts.\n")
made.add_alternative(
    "<html><head><title>kostenlos</title></head><body><p style='color: red'>Völlig <b>kosten</b>los:"
    + "<a href='https://a.example/?a=1&amp;b=2'>hier</a> " * 30
    + "</p></body></html>",
    subtype="html",
)
show("alternative", made, True, 30)

made.get_payload()[1].add_related(b"\x89PNG\r\n" * 3000, "image", "png", cid="<i@a>")
made.add_attachment(b"\0\1\2" * 50_000, "application", "octet-stream", filename="kostenlos.bin")
show("related and mixed", made, True, 30)

made = message()
made.set_content("Im Anhang.\n")
made.add_attachment("kostenlos https://a.example/\n", filename="a.txt")
inner = message("kostenlos")
inner.set_content("kostenlos https://a.example/\n")
made.add_attachment(inner)
show("attachments", made, False)

made = message()
made.set_content("")
show("empty", made, False)

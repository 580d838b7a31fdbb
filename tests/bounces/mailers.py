"""Postfix and Exim that send everything to one host, and return what it refuses; and that host."""

import grp
import os
import pathlib
import pwd
import shutil
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP
from rig.processes import ROOT, Failed, free_port, run

EXIM = ROOT / ".servers" / "exim" / "usr" / "sbin" / "exim4"
SENDER = "r@bounces.example"

POSTFIX_MAIN = """
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
relayhost = [127.0.0.1]:{port}
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtputf8_enable = no
maximal_queue_lifetime = 0
bounce_queue_lifetime = 0
maillog_file = {root}/log/mail.log
maillog_file_prefixes = {root}
"""

POSTFIX_MASTER = """
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
scache    unix - - n - 1 scache
anvil     unix - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
"""

EXIM_CONF = """
exim_path = {exim}
primary_hostname = exim.example
spool_directory = {root}/spool
log_file_path = {root}/log/%slog
pid_file_path = {root}/exim.pid
local_interfaces = 127.0.0.1
host_lookup =
log_selector = +all
begin routers
smart:
  driver = manualroute
  transport = relay
  route_list = * 127.0.0.1
  self = send
begin transports
relay:
  driver = smtp
  port = {port}
  allow_localhost
begin rewrite
begin retry
"""

MESSAGE = "From: a@bounces.example\nTo: {recipient}\nSubject: Hello\nMessage-ID: <{name}@bounces.example>\n\nHello.\n"


class Host:
    """Answers by the local part of the recipient, and keeps what comes back."""

    def __init__(self, replies):
        """`replies`: by local part the command that is answered, and the reply."""
        self.replies, self.returned, self.lock = replies, [], threading.Lock()
        self.port = free_port()
        # No EHLO of aiosmtpd's own name, and none of its limits.
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port, server_kwargs={"hostname": "mx.host.example"})

    def start(self):
        self.controller.start()

    def stop(self):
        self.controller.stop()

    async def handle_RCPT(self, server: SMTP, session, envelope, address, options):
        command, reply = self.replies.get(address.split("@")[0], ("", ""))
        if command == "RCPT":
            return reply
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server, session, envelope):
        for address in envelope.rcpt_tos:
            command, reply = self.replies.get(address.split("@")[0], ("", ""))
            if command == "DATA":
                return reply
        with self.lock:
            self.returned.append(envelope.content)
        return "250 2.0.0 Ok"


class Postfix:
    def __init__(self, rig, port):
        if os.geteuid() != 0:
            raise Failed("Postfix starts only as root")
        root = rig.directory / "postfix"
        self.configuration = root / "etc"
        for folder in ("etc", "queue", "data", "log"):
            (root / folder).mkdir(parents=True)
        shutil.chown(root / "data", "postfix", grp.getgrgid(pwd.getpwnam("postfix").pw_gid).gr_name)
        (self.configuration / "main.cf").write_text(POSTFIX_MAIN.format(root=root, port=port))
        (self.configuration / "master.cf").write_text(POSTFIX_MASTER)
        run(["postfix", "-c", self.configuration, "start"])
        rig.at_end.append(lambda: run(["postfix", "-c", self.configuration, "stop"]))

    def send(self, name, recipient):
        run(["/usr/sbin/sendmail", "-C", self.configuration, "-i", "-f", SENDER, recipient],
            input=MESSAGE.format(name=name, recipient=recipient))


class Exim:
    def __init__(self, rig, port):
        root = rig.directory / "exim"
        for folder in ("spool", "log"):
            (root / folder).mkdir(parents=True)
            # As what its package makes it run.
            shutil.chown(root / folder, "Debian-exim", "Debian-exim")
        self.configuration = root / "exim.conf"
        self.configuration.write_text(EXIM_CONF.format(root=root, exim=EXIM, port=port))
        self.configuration.chmod(0o644)

    def send(self, name, recipient):
        run([EXIM, "-C", self.configuration, "-odf", "-i", "-f", SENDER, recipient],
            input=MESSAGE.format(name=name, recipient=recipient))


def write(folder: pathlib.Path, messages):
    """Each into a file; the files, in order."""
    files = []
    for number, content in enumerate(messages):
        path = folder / f"returned-{number}.eml"
        path.write_bytes(content)
        files.append(path)
    return files

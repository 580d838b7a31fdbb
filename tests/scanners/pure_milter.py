"""A milter that is not libmilter: pure_milter.py PORT"""

import sys

import purepythonmilter as ppm


async def on_mail_from(command: ppm.MailFrom) -> ppm.VerdictOrContinue:
    if command.address.startswith("refused@"):
        return ppm.RejectWithCode(primary_code=(5, 7, 1), text="not you")
    return ppm.Continue()


async def on_body_chunk(_: ppm.BodyChunk) -> ppm.SkipToNextStage:
    return ppm.SkipToNextStage()


async def on_end_of_message(command: ppm.EndOfMessage) -> ppm.VerdictOrContinue:
    return ppm.Continue(manipulations=[ppm.AppendHeader(headername="X-Pure", headertext=command.macros.get("i", "none"))])


ppm.PurePythonMilter(
    name="pure", hook_on_mail_from=on_mail_from, hook_on_body_chunk=on_body_chunk,
    hook_on_end_of_message=on_end_of_message, can_add_headers=True, restrict_symbols=None,
).run_server(host="127.0.0.1", port=int(sys.argv[1]))

#!/usr/bin/env python3
"""Shows that each fuzz target finds a bug: one is put into a copy of the tree, and the target has to fail.

    python3 tests/fuzz/planted.py [TARGET…]         all of them when none is named

The copy is in target/fuzz/planted; the tree here is never changed. Each target begins with its seeds alone and has SECONDS.
The last line is `planted: ok found=N`, or `planted: FAILED …` with exit status 1.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "fuzz"
TREE = WORK / "planted"
SECONDS = 180

# By target: the file, what is replaced in it, by what, and what that means.
BUGS = {
    "command": ("services/lib/smtp/src/line.rs",
                "self.last = octets.last().copied().or(self.last);",
                "self.last = octets.last().copied();",
                "a CR is forgotten when the LF comes in a packet of its own"),
    "reply": ("services/lib/smtp/src/reply_decoder.rs",
              "c.is_control()", "c == '\n'",
              "control characters of a host are shown"),
    "data": ("services/lib/smtp/src/data_decoder.rs",
             "            // The dot was a stuffed one: gone. What follows is the line.\n            (State::Dot, _) => {",
             "            (State::Dot, b'.') => {\n                self.state = State::Text;\n                behind\n            }\n"
             "            (State::Dot, _) => {",
             "two dots are taken away where a line begins with two"),
    "chunk": ("services/lib/smtp/src/chunk_decoder.rs",
              "if first != b'\\n' {", "if first == b'\\r' {",
              "a CR at the end of a chunk may stand alone"),
    "binary": ("services/lib/message/src/binary.rs",
               "self.pending = pending;", "self.pending = Vec::new();",
               "what is not judged yet where a packet ends is lost"),
    "proxy": ("services/lib/smtp/src/proxy_protocol.rs",
              "let to_end = if octets.last() == Some(&b'\\r') { 1 } else { 2 };", "let to_end = 2;",
              "an octet that is the client's is read with the header"),
    "address": ("services/lib/mail/src/address.rs",
                "other => is_text_beyond_ascii(other) || other.is_ascii_graphic(),", "_ => true,",
                "a quoted local part may have line ends in it"),
    "header": ("services/lib/message/src/lines.rs",
               "            [.., b'\\r'] => line.len() - 1,\n", "",
               "a line is broken before a CR that is in a packet of its own, though it fits"),
    "scanner": ("services/lib/scan/src/milter/fields.rs",
                "field.push(b'\\t');", "field.push(b'x');",
                "a line of a milter's field may be a field of its own"),
    "token": ("services/lib/bearer/src/token.rs",
              "key.verify_sig(signed, &self.signature).is_ok()", "key.verify_sig(signed, &[]).is_err()",
              "a signature need not be one"),
    "mime": ("services/lib/message/src/mime.rs",
             "if self.is_complete {\n                    self.leave(0);", "if true {\n                    self.leave(0);",
             "a multipart whose end has not come yet is called not closed"),
    "policy": ("services/lib/sts/src/policy.rs",
               "seconds.min(LONGEST)", "seconds",
               "a policy holds longer than the bound"),
    "bounce": ("services/lib/classify/src/decide.rs",
               "code => code < 500 ||", "code => code < 400 ||",
               "an address is given up for what is said for now"),
    "arf": ("services/lib/bounce/src/feedback.rs",
            "value.parse().unwrap_or(1).max(1)", "value.parse().unwrap_or(1)",
            "a complaint may stand for no message"),
    "verp": ("services/lib/bounce/src/token/base32.rs",
             "(bits == 0 && at == N)", "(at == N)",
             "a token that was changed at its end is taken"),
}


def copy():
    """Makes the tree a copy of this one, without touching what is the same."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    names = set(filter(None, listed.split("\0")))
    for path in [path for path in TREE.rglob("*") if path.is_file()]:
        if str(path.relative_to(TREE)) not in names:
            path.unlink()
    for name in names:
        source, target = ROOT / name, TREE / name
        if source.is_file() and not (target.exists() and target.read_bytes() == source.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def finds(target):
    """Whether the target fails with its bug; and how."""
    file, before, after, meaning = BUGS[target]
    path = TREE / file
    text = path.read_text()
    if text.count(before) != 1:
        return False, f"{file} does not have, once, what the bug is put in place of"
    found = WORK / "planted-artifacts" / target
    corpus = WORK / "planted-corpus" / target
    for directory in (found, corpus):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    fuzz = TREE / "tests" / "fuzz"
    command = ["cargo", "fuzz", "build", "--fuzz-dir", fuzz, "--target-dir", WORK / "planted-build", "--sanitizer", "none",
               target]
    environment = {**os.environ, "RUSTC_BOOTSTRAP": "1"}
    path.write_text(text.replace(before, after))
    try:
        if subprocess.run(command, cwd=TREE, env=environment, check=False).returncode:
            return False, "it can't be built"
        began = time.monotonic()
        command[2] = "run"
        subprocess.run([*command, corpus, fuzz / "seeds" / target, "--", f"-max_total_time={SECONDS}", "-max_len=8192",
                        f"-dict={fuzz / 'smtp.dict'}", f"-artifact_prefix={found}/"], cwd=TREE, env=environment, check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took = time.monotonic() - began
    finally:
        path.write_text(text)
    return any(found.glob("crash-*")), f"{meaning}: {took:.0f} s"


def main():
    asked = sys.argv[1:] or list(BUGS)
    seeds = {path.name for path in (ROOT / "tests" / "fuzz" / "seeds").iterdir()}
    problems = [f"{target}: there is no bug for it" for target in sorted(seeds - set(BUGS))] if not sys.argv[1:] else []
    copy()
    subprocess.run([ROOT / "tests" / "fuzz" / "get.sh"], check=True)
    for target in asked:
        found, how = finds(target)
        print(f"planted: {target}: {'found' if found else 'NOT FOUND'}: {how}", flush=True)
        if not found:
            problems.append(f"{target} does not find its bug")
    if problems:
        sys.exit(f"planted: FAILED {'; '.join(problems)}")
    print(f"planted: ok found={len(asked)}")


if __name__ == "__main__":
    main()

"""What a relay gets out by, all foreign: Dante, HAProxy, Postfix with SASL; and an MX host that notes who comes."""

import grp
import os
import pwd
import shutil
import signal
import socketserver
import subprocess
import threading

from rig.processes import family, listens, run, wait_until

MX = "10.77.0.50"
OWN = ["10.77.0.11", "10.77.0.12", "10.77.0.13"]
SOCKS, SOCKS_OUT = "10.77.0.2", "10.77.0.21"
HAPROXY, HAPROXY_OUT = "10.77.0.3", "10.77.0.31"
SMART = "10.77.0.4"
ADDRESSES = [MX, *OWN, SOCKS, SOCKS_OUT, HAPROXY, HAPROXY_OUT, SMART]
USER, PASSWORD = "staffetta-egress", "relay-race"


class Mx:
    """Takes everything on port 25, and knows by which address and name each recipient's mail came."""

    def __init__(self):
        self.came = {}
        book = self.came

        class Handler(socketserver.StreamRequestHandler):
            def say(self, text):
                self.wfile.write(text.encode() + b"\r\n")

            def handle(self):
                name, recipients = "", []
                self.say("220 mx.dest.example")
                while line := self.rfile.readline().decode().strip():
                    verb = line.upper()
                    if verb.startswith(("EHLO", "HELO")):
                        name = line.split()[1]
                        self.say("250 mx.dest.example")
                    elif verb.startswith("RCPT"):
                        recipients.append(line[line.index("<") + 1:line.index(">")])
                        self.say("250 ok")
                    elif verb == "DATA":
                        self.say("354 go on")
                        while self.rfile.readline() != b".\r\n":
                            pass
                        for recipient in recipients:
                            book.setdefault(recipient, []).append((self.client_address[0], name))
                        recipients = []
                        self.say("250 taken")
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 ok")

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads = True, True

        self.server = Server((MX, 25), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def make_addresses():
    """In a network of our own."""
    run(["ip", "link", "set", "lo", "up"])
    for address in ADDRESSES:
        run(["ip", "address", "add", f"{address}/32", "dev", "lo"])


class Dante:
    """A SOCKS proxy with a login, that connects from an address of its own."""

    def __init__(self, rig):
        self.rig = rig
        run(["useradd", "--no-create-home", "--shell", "/usr/sbin/nologin", USER])
        rig.at_end.append(lambda: run(["userdel", USER]))
        run(["chpasswd"], input=f"{USER}:{PASSWORD}\n")
        self.configuration = rig.directory / "danted.conf"
        self.configuration.write_text(f"""logoutput: stderr
internal: {SOCKS} port = 1080
external: {SOCKS_OUT}
socksmethod: username
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: {MX}/32 command: connect }}
""")
        self.start()

    def start(self):
        self.process = self.rig.start("danted", ["danted", "-f", self.configuration], lambda: listens(SOCKS, 1080))

    def kill(self):
        """All of its processes at once."""
        for pid in family(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.kill()


class Haproxy:
    """Connects from where the PROXY header says to where it says."""

    def __init__(self, rig):
        self.rig, self.configuration = rig, rig.directory / "haproxy.cfg"
        self.configuration.write_text(f"""defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen egress
  bind {HAPROXY}:8026 accept-proxy
  source 0.0.0.0 usesrc clientip
  server any 0.0.0.0
""")
        self.start()

    def start(self):
        self.process = self.rig.start("haproxy", ["haproxy", "-db", "-f", self.configuration],
                                      lambda: listens(HAPROXY, 8026))


POSTFIX_MAIN = """
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = smart.example
mydestination =
inet_interfaces = {address}
inet_protocols = ipv4
smtp_bind_address = {address}
mynetworks =
relayhost = [{mx}]
alias_maps =
local_recipient_maps =
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions =
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_local_domain = smart.example
smtpd_tls_auth_only = yes
smtpd_tls_security_level = may
smtpd_tls_chain_files = {key}, {certificate}
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
maillog_file = {root}/log/mail.log
maillog_file_prefixes = {root}
"""

POSTFIX_MASTER = """
{address}:587 inet n - n - - smtpd
{address}:465 inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
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
error     unix - - n - - error
retry     unix - - n - - error
scache    unix - - n - 1 scache
anvil     unix - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
"""


def start_postfix(rig, certificate, key):
    """A smart host for whom logs in, over TLS only."""
    root = rig.directory / "postfix"
    for folder in ("etc", "queue", "data", "log", "sasl"):
        (root / folder).mkdir(parents=True)
    shutil.chown(root / "data", "postfix", grp.getgrgid(pwd.getpwnam("postfix").pw_gid).gr_name)
    # Where the plug-in looks, whatever it is told; only this process and its children see it there.
    database = root / "sasl" / "sasldb"
    subprocess.run(["saslpasswd2", "-p", "-c", "-f", database, "-u", "smart.example", USER], input=PASSWORD.encode(),
                   check=True)
    shutil.chown(database, "postfix")
    run(["mount", "--bind", database, "/etc/sasldb2"])
    values = dict(root=root, address=SMART, mx=MX, certificate=certificate, key=key)
    (root / "etc" / "main.cf").write_text(POSTFIX_MAIN.format(**values))
    (root / "etc" / "master.cf").write_text(POSTFIX_MASTER.format(**values))
    run(["postfix", "-c", root / "etc", "start"])
    rig.at_end.append(lambda: run(["postfix", "-c", root / "etc", "stop"]))
    wait_until("postfix listening", lambda: listens(SMART, 587))


def is_root():
    return os.geteuid() == 0

"""Postfix and Exim that send everything through the relay, logged in, over STARTTLS and over TLS at once."""

import os
import pwd
import grp
import shutil

from rig.processes import ROOT, Failed, run

from .mail import PASSWORD, SENDER, USERNAME

EXIM = ROOT / ".servers" / "exim" / "usr" / "sbin" / "exim4"

POSTFIX_MAIN = """
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = client.acme.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
relayhost = [127.0.0.1]:{port}
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{{ {{ [127.0.0.1]:{port} = {username}:{password} }} }}
smtp_sasl_security_options = noanonymous
smtp_sasl_mechanism_filter = {mechanism}
smtp_tls_security_level = {level}
smtp_tls_wrappermode = {wrapper}
smtp_tls_CAfile = {ca}
smtp_tls_secure_cert_match = relay.example.com
smtp_dns_support_level = disabled
smtp_host_lookup = native
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


def postfix(rig, mail, port, ca, wrapper, mechanism):
    """Takes the message with sendmail. `wrapper`: TLS at once."""
    if os.geteuid() != 0:
        raise Failed("Postfix starts only as root")
    root = rig.directory / f"postfix-{mail.name}"
    configuration = root / "etc"
    for folder in ("etc", "queue", "data", "log"):
        (root / folder).mkdir(parents=True)
    shutil.chown(root / "data", "postfix", grp.getgrgid(pwd.getpwnam("postfix").pw_gid).gr_name)
    values = dict(root=root, port=port, ca=ca, username=USERNAME, password=PASSWORD, mechanism=mechanism,
                  level="encrypt", wrapper="yes" if wrapper else "no")
    (configuration / "main.cf").write_text(POSTFIX_MAIN.format(**values))
    (configuration / "master.cf").write_text(POSTFIX_MASTER.format(**values))
    run(["postfix", "-c", configuration, "start"])
    rig.at_end.append(lambda: run(["postfix", "-c", configuration, "stop"]))
    with open(mail.write(rig.directory, "\n")) as content:
        run(["/usr/sbin/sendmail", "-C", configuration, "-i", "-f", SENDER, mail.recipient], stdin=content)


EXIM_CONF = """
exim_path = {exim}
primary_hostname = client.acme.example
spool_directory = {root}/spool
log_file_path = {root}/log/%slog
pid_file_path = {root}/exim.pid
local_interfaces = 127.0.0.1
tls_verify_certificates = {ca}
accept_8bitmime = true
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
  protocol = {protocol}
  allow_localhost
  hosts_require_tls = *
  hosts_require_auth = *
  tls_verify_certificates = {ca}
  tls_verify_hosts = {verify}
  tls_verify_cert_hostnames =
begin authenticators
{authenticator}
begin rewrite
begin retry
* * F,10m,5s
"""

EXIM_AUTHENTICATORS = {
    "PLAIN": f"plain:\n  driver = plaintext\n  public_name = PLAIN\n  client_send = ^{USERNAME}^{PASSWORD}\n",
    "LOGIN": f"login:\n  driver = plaintext\n  public_name = LOGIN\n  client_send = : {USERNAME} : {PASSWORD}\n",
}


def exim(rig, mail, port, ca, implicit, mechanism):
    """Takes the message on its command line and delivers at once."""
    root = rig.directory / f"exim-{mail.name}"
    for folder in ("spool", "log"):
        (root / folder).mkdir(parents=True)
        # As what its package makes it run.
        shutil.chown(root / folder, "Debian-exim", "Debian-exim")
    conf = root / "exim.conf"
    conf.write_text(EXIM_CONF.format(root=root, exim=EXIM, port=port, ca=ca, protocol="smtps" if implicit else "smtp", verify="*",
                                     authenticator=EXIM_AUTHENTICATORS[mechanism]))
    conf.chmod(0o644)
    with open(mail.write(rig.directory, "\n")) as content:
        run([EXIM, "-C", conf, "-odf", "-i", "-f", SENDER, mail.recipient], stdin=content)
    log = (root / "log" / "mainlog").read_text()
    if " => " not in log:
        raise Failed(f"Exim did not deliver:\n{log}")

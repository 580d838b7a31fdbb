"""Postfix with OpenDKIM in a queue of its own, tuned for two cores and one fast destination."""

import grp
import os
import pwd
import shutil

from .processes import Failed, Process, family, free_port, listens, run, stat, TICK_US, wait_until

MAIN = """
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.example.com
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink}
alias_maps =
local_recipient_maps =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
# The destination is given by address: nothing is asked of DNS, coming in or going out.
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
smtp_tls_security_level = none
smtpd_tls_security_level = none
# Nothing holds the clients back.
in_flow_delay = 0
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
default_process_limit = 200
qmgr_message_active_limit = 100000
qmgr_message_recipient_limit = 100000
default_destination_concurrency_limit = {concurrency}
initial_destination_concurrency = {concurrency}
default_destination_concurrency_failed_cohort_limit = 100
smtp_destination_recipient_limit = 1
# Connections to the sink are reused.
smtp_connection_cache_destinations = 127.0.0.1
smtp_connection_cache_on_demand = yes
smtp_connection_reuse_time_limit = 300s
max_use = 10000
max_idle = 300s
smtpd_milters = unix:{root}/opendkim.sock
milter_default_action = tempfail
milter_protocol = 6
header_size_limit = 102400
hash_queue_names = deferred
message_size_limit = 30000000
maillog_file =
syslog_name = staffetta-bench
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
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
proxywrite unix - - n - 1 proxymap
smtp      unix - - n - {concurrency} smtp
relay     unix - - n - {concurrency} smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
"""

OPENDKIM = """
Syslog no
Mode s
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
OversignHeaders From,To,Subject,Date
Domain {domain}
Selector s1
KeyFile {key}
RequireSafeKeys no
Socket local:{root}/opendkim.sock
UMask 000
UserID root
AutoRestart no
"""


class Postfix:
    """An instance below the rig's directory; stopped with the rig."""

    def __init__(self, rig, sink_port, key, domain, concurrency=20, trace_fsyncs=None):
        if os.geteuid() != 0:
            raise Failed("Postfix starts only as root")
        self.port = free_port()
        self.root = rig.directory / "postfix"
        self.configuration = self.root / "etc"
        for folder in (self.configuration, self.root / "queue", self.root / "data"):
            folder.mkdir(parents=True)
        shutil.chown(self.root / "data", "postfix", grp.getgrgid(pwd.getpwnam("postfix").pw_gid).gr_name)
        values = dict(root=self.root, sink=sink_port, port=self.port, concurrency=concurrency)
        (self.configuration / "main.cf").write_text(MAIN.format(**values))
        (self.configuration / "master.cf").write_text(MASTER.format(**values))
        opendkim = self.root / "opendkim.conf"
        opendkim.write_text(OPENDKIM.format(root=self.root, key=key, domain=domain))
        self.opendkim = rig.start(
            "opendkim", ["opendkim", "-f", "-x", opendkim], (self.root / "opendkim.sock").exists
        )
        run(["postfix", "-c", self.configuration, "start"])
        rig.at_end.append(self.stop)
        self.master = int((self.root / "queue/pid/master.pid").read_text())
        wait_until("postfix listening", lambda: listens("127.0.0.1", self.port))
        self.tracer = None
        if trace_fsyncs:
            self.tracer = rig.start(
                "strace", ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", trace_fsyncs, "-p", self.master]
            )

    def cpu_us(self):
        """CPU time of the master and all its daemons, ended ones included, in microseconds."""
        return sum(found[1] + found[2] for member in family(self.master) if (found := stat(member))) * TICK_US

    def peak_rss_kib(self):
        return Process.peak_rss_kib(_Pid(self.master))

    def stop(self):
        run(["postfix", "-c", self.configuration, "stop"])


class _Pid:
    def __init__(self, pid):
        self.pid = pid

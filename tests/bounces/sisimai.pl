# What Sisimai makes of messages: a line of recipient and reason, after the file, for each.
use strict;
use warnings;
use Sisimai;
binmode STDOUT, ':utf8';
for my $file (@ARGV) {
    my $read = eval { Sisimai->make($file, 'delivered' => 1) } || [];
    print join("\t", $file, $_->recipient->address, $_->reason), "\n" for @$read;
}

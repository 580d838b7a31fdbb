use bounce::{Inbound, read};
fn main() {
    for path in std::env::args().skip(1) {
        let Ok(octets) = std::fs::read(&path) else {
            continue;
        };
        let name = path.rsplit('/').next().unwrap_or("");
        match read(&octets) {
            Inbound::Report(r) => {
                for x in &r.recipients {
                    println!(
                        "{name}\treport-{:?}\t{}\t{}\t{:?}\t{:?}\t{}\t{}\t{}",
                        r.form,
                        x.address,
                        x.action.name(),
                        x.judgement.reason,
                        x.judgement.kind,
                        x.is_hard(),
                        x.code,
                        x.diagnostic
                    );
                }
            }
            Inbound::Feedback(f) => println!(
                "{name}\tfeedback\t{}\t{}\t\t\t\t\t{}",
                f.recipients.join(","),
                f.kind.name(),
                f.original.message_id
            ),
            Inbound::Automatic(a) => println!("{name}\tautomatic\t{a:?}"),
            other => println!("{name}\t{other:?}"),
        }
    }
}

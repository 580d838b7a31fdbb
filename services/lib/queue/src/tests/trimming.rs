//! What leaves the spool, the journal and the chunks, and when.

use proto::spool::Chunks;

use super::*;

#[test]
fn a_block_leaves_after_the_last_disposition_in_it_is_stored() {
    let mut desk = Desk::new();
    let (one, other) = (desk.id(), desk.id());
    desk.accept(vec![
        entry(one, &["a@one.example"]),
        entry(other, &["b@two.example"]),
    ]);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), 0);
    let last = desk.assign();
    desk.begin(&last);
    desk.settle();
    desk.report(&last, &[(0, Verdict::Delivered)]);
    assert!(!desk.is_live(other));
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), 0, "the outcome is not stored yet");
    desk.settle();
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), 2);
}

#[test]
fn the_spool_is_never_trimmed_past_a_live_block_or_the_cursor() {
    let mut desk = Desk::new();
    let first = desk.message(&["a@one.example"]);
    let held = desk.assign();
    for _ in 0..300 {
        desk.message(&["a@one.example"]);
        desk.attempt(Verdict::Delivered);
    }
    desk.settle();
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), 0);
    assert!(desk.is_live(first));
    // Stored, and not read yet.
    desk.stores.put(block(vec![]));
    desk.begin(&held);
    desk.report(&held, &[(0, Verdict::Delivered)]);
    desk.settle();
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), 302);
}

#[test]
fn the_parts_of_an_index_stay_with_their_block() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Delivered);
    let id = desk.id();
    // Parts 2 and 3 go before block 4.
    desk.stores.last_block = 4;
    desk.intake
        .block(
            desk.now_ms,
            2,
            4,
            block(vec![entry(id, &["a@one.example"])]),
        )
        .unwrap();
    desk.stores
        .blocks
        .insert(4, block(vec![entry(id, &["a@one.example"])]));
    desk.tick();
    desk.message(&["a@one.example"]);
    desk.settle();
    desk.pass(400_000);
    assert_eq!(desk.trimmed_below(), 2);
    desk.intake.begin_snapshot();
    desk.settle();
    desk.crash();
    desk.settle();
    desk.pass(400_000);
    assert_eq!(
        desk.trimmed_below(),
        2,
        "a snapshot knows where the block begins"
    );
}

#[test]
fn parts_whose_block_is_still_to_come_are_kept_for_as_long_as_it_may() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    // Part 2 is stored, then another ingress stores block 3.
    desk.stores.last_block = 2;
    desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Delivered);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    desk.pass(300_000);
    assert_eq!(desk.trimmed_below(), 2);
    let id = desk.id();
    desk.stores.last_block = 4;
    desk.intake
        .block(
            desk.now_ms,
            2,
            4,
            block(vec![entry(id, &["a@one.example"])]),
        )
        .unwrap();
    desk.settle();
    desk.pass(400_000);
    assert_eq!(desk.trimmed_below(), 2);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), 5);
}

#[test]
fn parts_that_nobody_completes_are_given_up() {
    let mut desk = Desk::new();
    desk.stores.last_block = 1;
    desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), 0);
    desk.pass(330_000);
    assert_eq!(desk.trimmed_below(), 3);
}

#[test]
fn chunks_are_deleted_when_the_last_disposition_is_stored() {
    let mut desk = Desk::new();
    let id = desk.id();
    let mut large = entry(id, &["a@one.example", "b@two.example"]);
    large.chunks = Some(Chunks {
        upload_id: "upload".into(),
        ..Chunks::default()
    });
    desk.accept(vec![large]);
    let deleted = |desk: &Desk| {
        desk.seen
            .iter()
            .any(|effect| matches!(effect, Effect::DeleteUpload(id) if &**id == "upload"))
    };
    desk.attempt(Verdict::Delivered);
    desk.settle();
    assert!(desk.intake.has_upload("upload") && !deleted(&desk));
    let last = desk.assign();
    desk.begin(&last);
    desk.settle();
    desk.report(&last, &[(last.ordinals[0], Verdict::Delivered)]);
    assert!(!deleted(&desk));
    desk.settle();
    assert!(deleted(&desk));
}

#[test]
fn survivors_at_the_head_are_copied_forward_and_their_blocks_leave_when_that_is_stored() {
    let mut desk = Desk::new();
    let survivor = desk.message(&["slow@one.example"]);
    desk.attempt(Verdict::Transient);
    let flying = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    for _ in 0..20 {
        desk.message(&["a@one.example"]);
        desk.attempt(Verdict::Delivered);
    }
    desk.settle();
    assert_eq!(
        desk.intake.wants_copy(desk.now_ms, false),
        None,
        "not worth it unless space is short"
    );
    desk.now_ms += 5_000;
    let copy = desk.intake.wants_copy(desk.now_ms, true).unwrap();
    assert_eq!(
        copy.messages,
        [(
            survivor,
            Place {
                sequence: 1,
                index: 0
            }
        )],
        "not what is in flight"
    );
    assert_eq!(
        desk.intake.wants_copy(desk.now_ms, true),
        None,
        "one copy at a time"
    );
    let original = desk.stores.blocks[&1].entries.clone();
    let place = desk.stores.put(BlockIndex {
        flags: 1,
        ..block(original)
    });
    desk.read(place);
    desk.intake.copied(copy.epoch, place, &[survivor]);
    assert_eq!(
        desk.place_of(survivor),
        Place {
            sequence: place,
            index: 0
        }
    );
    desk.begin(&delivery);
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    desk.settle();
    desk.pass(10_000);
    assert!(!desk.is_live(flying));
    assert_eq!(desk.trimmed_below(), place);
    desk.stores.blocks = desk.stores.blocks.split_off(&place);
    desk.crash();
    assert_eq!(
        desk.place_of(survivor),
        Place {
            sequence: place,
            index: 0
        }
    );
    assert_eq!(desk.intake.totals().messages, 1);
}

#[test]
fn a_copy_that_the_journal_does_not_name_has_no_effect() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    let original = desk.stores.blocks[&1].entries.clone();
    let place = desk.stores.put(BlockIndex {
        flags: 1,
        ..block(original)
    });
    desk.read(place);
    desk.intake.copied(desk.intake.epoch() + 1, place, &[id]);
    desk.settle();
    assert_eq!(desk.place_of(id).sequence, 1);
    desk.crash();
    assert_eq!(desk.place_of(id).sequence, 1);
    assert_eq!(desk.intake.totals().messages, 1);
}

#[test]
fn a_message_that_was_finished_while_it_was_copied_does_not_come_back() {
    let mut desk = Desk::new();
    let (finished, survivor) = (
        desk.message(&["a@one.example"]),
        desk.message(&["b@one.example"]),
    );
    let entries = [1, 2]
        .map(|sequence| desk.stores.blocks[&sequence].entries[0].clone())
        .to_vec();
    desk.attempt(Verdict::Delivered);
    desk.settle();
    desk.intake.begin_snapshot();
    desk.settle();
    let place = desk.stores.put(BlockIndex {
        flags: 1,
        ..block(entries)
    });
    desk.intake
        .copied(desk.intake.epoch(), place, &[finished, survivor]);
    desk.settle();
    desk.crash();
    assert!(!desk.is_live(finished), "it would be delivered twice");
    assert_eq!(
        desk.place_of(survivor),
        Place {
            sequence: place,
            index: 1
        }
    );
}

#[test]
fn a_copy_does_not_bring_back_recipients_that_were_final_before_it_was_made() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example", "b@two.example"]);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    // The start of the snapshot is stored, its parts come after the message is moved and finished.
    desk.intake.begin_snapshot();
    desk.tick();
    let entries = desk.stores.blocks[&1].entries.clone();
    let place = desk.stores.put(BlockIndex {
        flags: 1,
        ..block(entries)
    });
    desk.intake.copied(desk.intake.epoch(), place, &[id]);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    assert!(!desk.is_live(id));
    desk.stores.blocks.remove(&1);
    desk.crash();
    assert!(!desk.is_live(id), "it would be delivered twice");
}

#[test]
fn the_journal_is_trimmed_to_the_start_of_a_complete_snapshot_only() {
    let mut desk = Desk::new();
    for _ in 0..10 {
        desk.message(&["a@one.example"]);
    }
    desk.settle();
    desk.intake.begin_snapshot();
    let trims = |desk: &Desk| -> Vec<u64> {
        let below = |effect: &Effect| match effect {
            Effect::TrimJournal { below } => Some(*below),
            _ => None,
        };
        desk.seen.iter().filter_map(below).collect()
    };
    desk.tick();
    let start = desk.stores.last_record + 1;
    desk.store();
    desk.tick();
    assert_eq!(trims(&desk), []);
    desk.settle();
    assert_eq!(trims(&desk), [start]);
    // Short of space: it is asked for again, and a snapshot that would free nothing is not written.
    let before = desk.stores.last_record;
    desk.intake.save_space();
    desk.settle();
    assert_eq!(trims(&desk), [start, start]);
    assert_eq!(desk.stores.last_record, before);
}

#[test]
fn a_part_of_a_snapshot_stays_small_whatever_the_messages() {
    let mut desk = Desk::new();
    let domains: Vec<String> = (0..500)
        .map(|n| format!("user@domain-number-{n}.example"))
        .collect();
    let recipients: Vec<&str> = domains.iter().map(String::as_str).collect();
    for _ in 0..40 {
        desk.message(&recipients);
    }
    desk.settle();
    desk.intake.begin_snapshot();
    desk.settle();
    let largest = desk
        .stores
        .records
        .values()
        .map(|(_, record)| record.len())
        .max()
        .unwrap();
    assert!(largest < 2 * 1024 * 1024, "{largest} bytes");
    let parts = desk
        .entries()
        .into_iter()
        .filter(|kind| matches!(kind, Kind::SnapshotPart(_)))
        .count();
    assert!(parts >= 3, "{parts} parts");
    desk.crash();
    assert_eq!(desk.intake.totals().waiting, 40 * 500);
}

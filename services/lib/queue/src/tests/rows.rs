use super::*;

/// The earliest acceptance, looked for so many at a time; and the number of steps.
fn look(intake: &Intake, at_once: u32) -> (Option<u64>, u32) {
    let (mut earliest_ms, mut next, mut steps) = (None, 0, 0);
    loop {
        let (found_ms, place) = intake.earliest_among(next, at_once);
        earliest_ms = [earliest_ms, found_ms].into_iter().flatten().min();
        (next, steps) = (place, steps + 1);
        if next == 0 {
            return (earliest_ms, steps);
        }
    }
}

#[test]
fn the_earliest_message_is_found_in_steps_of_any_size() {
    let mut desk = Desk::new();
    assert_eq!(look(&desk.intake, 10), (None, 1));
    (0..25).for_each(|_| {
        desk.message(&["a@one.example"]);
    });
    let messages = &desk.intake.live.messages;
    let expected_ms = (0..messages.slots())
        .filter_map(|slot| messages.get(slot))
        .map(|message| message.id.unix_ms())
        .min();

    assert!(expected_ms.is_some());
    assert_eq!(look(&desk.intake, 10), (expected_ms, 3));
    assert_eq!(look(&desk.intake, 25), (expected_ms, 1));
    assert_eq!(look(&desk.intake, 1), (expected_ms, 25));
}

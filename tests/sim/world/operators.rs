//! What operators do while all that goes wrong.

use proto::dispatch::scheduler_item::Kind as ToSender;
use proto::operation::{Kind as Action, Lifted, Operation, Selector};

use super::*;

impl World {
    /// Somebody suspends, moves, retries, bounces, cancels or resumes something; at the end all is resumed.
    pub(super) fn operate(&mut self) {
        if !self.faulty() {
            for operation in &mut self.operations {
                operation.lifted.get_or_insert_default();
            }
        } else if self.chance(30) && !self.operations.is_empty() {
            let lifted = self.rng.random_range(0..self.operations.len());
            self.operations[lifted].lifted = Some(Lifted::default());
        } else {
            let operation = self.operation();
            self.operations.push(operation);
        }
        self.operated += 1;
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life;
            let delay = self.rng.random_range(1..50);
            self.after(delay, Event::Operations { node, life });
        }
        if self.faulty() {
            let delay = self.rng.random_range(500..15_000);
            self.after(delay, Event::Operate);
        }
    }

    fn operation(&mut self) -> Operation {
        self.numbers += 1;
        let kind = match self.rng.random_range(0..100) {
            0..30 => Action::Suspend,
            30..50 => Action::Move,
            50..70 => Action::Retry,
            70..80 => Action::Bounce,
            80..90 => Action::Release,
            _ => Action::Cancel,
        };
        let mut selector = Selector::default();
        let ids: Vec<MessageId> = self
            .ledger
            .keys()
            .rev()
            .map(|(id, _)| *id)
            .take(20)
            .collect();
        match self.rng.random_range(0..5) {
            0 if !ids.is_empty() => {
                let id = ids[self.rng.random_range(0..ids.len())];
                selector.messages = vec![id.to_string()];
            }
            1 if matches!(kind, Action::Suspend | Action::Move) => {
                selector.sources = vec!["a".to_owned()];
            }
            2 => selector.sites = vec!["mx.d1.example".to_owned()],
            _ => selector.domains = vec![format!("d{}.example", self.rng.random_range(0..3))],
        }
        let is_once = !matches!(kind, Action::Suspend | Action::Move);
        if is_once {
            selector.accepted_before_ms = self.now;
        }
        let lasts = if is_once {
            DAY_MS
        } else {
            self.rng.random_range(1_000..60_000)
        };
        Operation {
            format: 1,
            id: format!("operation-{}", self.numbers),
            kind: kind.into(),
            selector: Some(selector),
            author: "alice".to_owned(),
            reason: "because".to_owned(),
            at_ms: self.now,
            expires_at_ms: self.now + lasts,
            pool: "other".to_owned(),
            lifted: None,
        }
    }

    /// A node learns what there is now.
    pub(super) fn learn_operations(&mut self, node: usize) {
        self.nodes[node].operations = self.operations.clone();
        let known = self.operations.clone();
        self.step(node, Some(Input::Operations(known)));
    }

    /// A node gives no sender what it knows to be suspended.
    pub(super) fn check_assigned(&self, node: usize, item: &SchedulerItem) {
        let Some(ToSender::Assignment(assignment)) = &item.kind else {
            return;
        };
        let id = assignment
            .delivery
            .as_ref()
            .map(|delivery| &delivery.message_id[..]);
        let id = id.and_then(|id| MessageId::try_from(id).ok());
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        for operation in &self.nodes[node].operations {
            let selector = operation.selector.as_ref().expect("each has one");
            let holds = operation.kind() == Action::Suspend
                && operation.lifted.is_none()
                && self.clock(node) < operation.expires_at_ms;
            let is_meant = selector.domains.contains(&assignment.domain)
                || selector.messages.contains(&id)
                || selector
                    .sites
                    .contains(&format!("mx.{}", assignment.domain));
            assert!(
                !(holds && is_meant),
                "{id} to {} is assigned although {} suspends it",
                assignment.domain,
                operation.id
            );
        }
    }
}

//! The dialogue with the senders.

use egress::{Change, Drawn, LaneId, Lanes, SenderId, SlotId};
use hashbrown::HashMap;
use mail::{PartitionId, Place};
use proto::dispatch::scheduler_item::Kind as ToSender;
use proto::dispatch::sender_item::Kind as FromSender;
use proto::dispatch::{
    Assignment, Begin, CloseSlot, DeliveryRef, Hello, Owns, PartitionEpoch, Permit, Refused,
    Report, ReportStored, ReturnReason, Returned, SchedulerItem, SenderItem, Welcome,
};
use queue::{Judged, SessionId, Via};

use super::automation::{hear, heard_in};
use super::judge::judge;
use super::placing::LaneInfo;
use super::policies::ByConfig;
use super::sources::reached;
use super::used::End;
use super::{Item, Machine, Output};

/// After a return that concerns the sender or a service it needs, milliseconds.
const SOON_MS: u64 = 2_000;
/// After a return since no key fits: somebody must change the configuration, milliseconds.
const LATER_MS: u64 = 60_000;
/// Life of a permit from its receipt, milliseconds.
const PERMIT_MS: u32 = 60_000;

/// A sender's stream.
#[derive(Default)]
pub(super) struct Session {
    sender_id: String,
    welcomed: bool,
    /// Lanes that the sender was told of, with the version it was told.
    lanes: HashMap<LaneId, u32>,
    /// What it holds: by partition, epoch and number of the assignment, which together are unique.
    held: HashMap<(u32, u64, u32), Held>,
}

/// An assignment that is under way.
pub(super) struct Held {
    pub(super) lane: LaneId,
    slot: SlotId,
    place: Place,
    domain: std::sync::Arc<str>,
    /// What it draws on, and how far it is known to have come.
    pub(super) drawn: Drawn,
    pub(super) has_begun: bool,
    pub(super) has_left: bool,
}

/// Assignments of which nothing more will be heard.
pub(super) struct Lost(pub(super) Vec<Held>);

impl Session {
    /// The name that the sender gave.
    pub(super) fn sender_id(&self) -> &str {
        &self.sender_id
    }

    pub(super) fn held_mut(&mut self, key: &(u32, u64, u32)) -> Option<&mut Held> {
        self.held.get_mut(key)
    }

    /// The partition is not ours any more. What the sender holds of it will be reported to the next owner, so slots
    /// and credit are freed now.
    pub(super) fn forget_partition(
        &mut self,
        session: SessionId,
        partition: PartitionId,
        lanes: &mut Lanes<Item>,
    ) -> Lost {
        let of_it = |(of, _, _): &(u32, u64, u32), _: &mut Held| *of == partition.0;
        let lost = Lost::new(self.held.extract_if(of_it));
        for held in &lost.0 {
            lanes.released(held.lane, held.slot, SenderId(session.0));
        }
        lost
    }
}

impl Lost {
    /// In the order of their numbers, so that a seed of the simulation replays.
    fn new(held: impl Iterator<Item = ((u32, u64, u32), Held)>) -> Self {
        let mut held: Vec<_> = held.collect();
        held.sort_unstable_by_key(|(key, _)| *key);
        Self(held.into_iter().map(|(_, held)| held).collect())
    }
}

fn via<'a>(session: &'a Session, lane: Option<&'a LaneInfo>) -> Via<'a> {
    Via {
        sender_id: &session.sender_id,
        source: lane.map_or("", |lane| lane.source().name.as_str()),
        site: lane.map_or("", |lane| &*lane.site),
    }
}

pub(super) fn key_of(delivery: &DeliveryRef) -> (u32, u64, u32) {
    (delivery.partition, delivery.epoch, delivery.attempt)
}

impl Machine {
    pub(super) fn sender_item(&mut self, now_ms: u64, session: SessionId, item: SenderItem) {
        match item.kind {
            Some(FromSender::Hello(hello)) => self.hello(now_ms, session, hello),
            Some(FromSender::Begin(begin)) => self.begin(now_ms, session, begin),
            Some(FromSender::Left(left)) => self.left(now_ms, session, left),
            Some(FromSender::Report(report)) => self.report(now_ms, session, report),
            Some(FromSender::Returned(returned)) => self.returned(now_ms, session, returned),
            Some(FromSender::SlotClosed(closed)) => {
                self.lanes.slot_closed(
                    LaneId(closed.lane),
                    SlotId(closed.slot),
                    SenderId(session.0),
                );
            }
            Some(FromSender::Draining(_)) => {
                self.lanes.sender_drains(SenderId(session.0));
                self.sources_changed(now_ms, None);
            }
            Some(FromSender::Pong(_)) | None => {}
        }
    }

    fn hello(&mut self, now_ms: u64, session: SessionId, hello: Hello) {
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        if std::mem::replace(&mut state.welcomed, true) {
            return;
        }
        state.sender_id = hello.sender_id;
        let welcome = Welcome {
            scheduler_id: self.scheduler_id.clone(),
        };
        self.send(session, ToSender::Welcome(welcome));
        self.send(session, ToSender::Owns(self.owns()));
        for owned in self.partitions.values_mut() {
            owned.intake.session_inventory(session, &hello.inventory);
        }
        let sources = hello.sources.iter().map(|source| source.as_str().into());
        self.lanes
            .sender_up(SenderId(session.0), hello.credit, sources);
        self.sources_changed(now_ms, None);
    }

    pub(super) fn detached(&mut self, now_ms: u64, session: SessionId) {
        if let Some(state) = self.sessions.remove(&session) {
            self.settle_lost(now_ms, Lost::new(state.held.into_iter()));
        }
        self.lanes.sender_gone(Self::sender_id_of(session));
        for owned in self.partitions.values_mut() {
            owned.intake.session_gone(now_ms, session);
        }
        self.forget_sender(Self::sender_id_of(session));
        self.sources_changed(now_ms, None);
    }

    fn begin(&mut self, now_ms: u64, session: SessionId, begin: Begin) {
        let Some(delivery) = begin.delivery else {
            return;
        };
        if !self
            .partitions
            .contains_key(&PartitionId(delivery.partition))
        {
            self.refuse(session, delivery, "the partition is not owned here");
            return;
        }
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        let begins = state.held_mut(&key_of(&delivery));
        let lane = begins.as_ref().map(|held| held.lane);
        let begins = begins.and_then(|held| {
            let again = std::mem::replace(&mut held.has_begun, true);
            (!again).then_some((held.lane, held.drawn))
        });
        self.note_begun(now_ms, begins);
        let Some(state) = self.sessions.get(&session) else {
            return;
        };
        let info = lane.and_then(|lane| self.lane_infos.get(lane));
        if self.may_not_begin(info, &delivery) {
            if let Some(owned) = self.partitions.get_mut(&PartitionId(delivery.partition)) {
                owned.intake.returned(session, &delivery, now_ms);
            }
            self.refuse(
                session,
                delivery,
                "it is suspended, or leaves by another pool",
            );
            return;
        }
        let Some(owned) = self.partitions.get_mut(&PartitionId(delivery.partition)) else {
            return;
        };
        owned.intake.begin(
            now_ms,
            session,
            via(state, info),
            &delivery,
            begin.final_reply_timeout_ms,
        );
    }

    fn report(&mut self, now_ms: u64, session: SessionId, mut report: Report) {
        let Some(delivery) = report.delivery.clone() else {
            return;
        };
        let held = self.release(now_ms, session, &delivery, End::Reported);
        let Some(owned) = self.partitions.get_mut(&PartitionId(delivery.partition)) else {
            return;
        };
        let Some(state) = self.sessions.get(&session) else {
            return;
        };
        let dot_sent = report.dot_sent;
        let judged = std::mem::take(&mut report.recipients)
            .into_iter()
            .map(|recipient| judge(recipient, dot_sent));
        let judged: Vec<Judged> = judged.collect();
        let heard = heard_in(&judged);
        let partition = PartitionId(delivery.partition);
        let reached = reached(&judged).map(|(is, text)| (is, text.to_owned()));
        let lane = held.as_ref().map(|held| held.lane);
        let mut home = None;
        let changes = match (held.as_ref(), owned.intake.about(&delivery)) {
            (Some(held), Some(about)) => {
                let place = (held.lane, &self.lanes, &mut self.lane_infos);
                let changes = hear(now_ms, &mut self.automation, place, about, &heard);
                let is_conviction = |change: &Change| matches!(change, Change::Convicted { .. });
                if self.isolation.is_needed() || changes.iter().any(is_conviction) {
                    let (tenant, stream, domain) = about;
                    home = self.config.route(tenant, stream, domain).cloned();
                    if let Some(route) = &home {
                        self.isolation.count(now_ms, &route.pool, tenant, &judged);
                    }
                }
                changes
            }
            _ => Vec::new(),
        };
        let info = held.and_then(|held| self.lane_infos.get(held.lane));
        if let Some(info) = info {
            let provider = info.provider.as_deref();
            self.counts
                .outcomes
                .note(provider, &info.pool.name, &judged);
        }
        let policies = ByConfig(self.config.clone());
        owned.intake.report(
            now_ms,
            session,
            &report,
            judged,
            via(state, info),
            &policies,
        );
        let home = home.as_ref().map(|route| route.pool.as_str());
        self.automation_changed(now_ms, Some((partition, home)), changes);
        if let (Some(lane), Some((is_reached, text))) = (lane, reached) {
            if is_reached {
                self.bound(lane, SenderId(session.0));
            }
            self.note_reached(now_ms, lane, partition, (is_reached, &text));
        }
    }

    fn returned(&mut self, now_ms: u64, session: SessionId, returned: Returned) {
        let Some(delivery) = &returned.delivery else {
            return;
        };
        self.counts.returned += 1;
        let end = End::Returned(returned.reason());
        let Some(held) = self.release(now_ms, session, delivery, end) else {
            return;
        };
        let Some(owned) = self.partitions.get_mut(&PartitionId(delivery.partition)) else {
            return;
        };
        match returned.reason() {
            ReturnReason::NotFound | ReturnReason::Damaged => {
                let detail = if returned.detail.is_empty() {
                    returned.reason().as_str_name().to_owned()
                } else {
                    returned.detail
                };
                owned
                    .intake
                    .unreadable(now_ms, session, delivery, held.place, &detail);
            }
            ReturnReason::SiteChanged => {
                self.sites.forget(&held.domain);
                // Not at once: while the resolvers disagree it would only come back.
                owned.intake.returned(session, delivery, now_ms + SOON_MS);
            }
            ReturnReason::Draining | ReturnReason::Connection => {
                owned.intake.returned(session, delivery, now_ms);
            }
            ReturnReason::SignerUnavailable if !returned.detail.is_empty() => {
                owned.intake.returned(session, delivery, now_ms + LATER_MS);
            }
            ReturnReason::Source => {
                owned.intake.returned(session, delivery, now_ms);
                let partition = PartitionId(delivery.partition);
                let sender = SenderId(session.0);
                self.not_bound(now_ms, held.lane, partition, sender, &returned.detail);
            }
            // A part of the content was out already: the host need not see that every few seconds.
            ReturnReason::StorageUnavailable if held.has_left => {
                owned.intake.returned(session, delivery, now_ms + LATER_MS);
            }
            // A sender that knows a newer epoch would refuse it again until this scheduler knows, too.
            ReturnReason::StaleEpoch
            | ReturnReason::SignerUnavailable
            | ReturnReason::StorageUnavailable
            | ReturnReason::Unspecified => {
                owned.intake.returned(session, delivery, now_ms + SOON_MS);
            }
        }
    }

    /// An assignment is over: its slot is idle and its credit back.
    fn release(
        &mut self,
        now_ms: u64,
        session: SessionId,
        delivery: &DeliveryRef,
        end: End,
    ) -> Option<Held> {
        let held = self
            .sessions
            .get_mut(&session)?
            .held
            .remove(&key_of(delivery))?;
        self.settle(now_ms, &held, end);
        self.lanes
            .released(held.lane, held.slot, SenderId(session.0));
        Some(held)
    }

    pub(super) fn permit(&mut self, session: SessionId, delivery: DeliveryRef) {
        let permit = Permit {
            delivery: Some(delivery),
            valid_ms: PERMIT_MS,
        };
        self.send(session, ToSender::Permit(permit));
    }

    pub(super) fn report_stored(&mut self, session: SessionId, delivery: DeliveryRef) {
        self.send(
            session,
            ToSender::ReportStored(ReportStored {
                delivery: Some(delivery),
            }),
        );
    }

    pub(super) fn refuse(&mut self, session: SessionId, delivery: DeliveryRef, reason: &str) {
        self.counts.refused += 1;
        self.release(self.now_ms, session, &delivery, End::Refused);
        let refused = Refused {
            delivery: Some(delivery),
            reason: reason.to_owned(),
        };
        self.send(session, ToSender::Refused(refused));
    }

    pub(super) fn close_slot(&mut self, lane: LaneId, slot: SlotId, sender: SenderId) {
        let close = CloseSlot {
            lane: lane.0,
            slot: slot.0,
        };
        self.send(SessionId(sender.0), ToSender::CloseSlot(close));
    }

    pub(super) fn assign(
        &mut self,
        now_ms: u64,
        (lane, slot, sender): (LaneId, SlotId, SenderId),
        item: Item,
        drawn: Drawn,
    ) {
        let session = SessionId(sender.0);
        let Some(owned) = self.partitions.get_mut(&item.partition) else {
            self.lanes.unassign(lane, slot, sender, drawn);
            return;
        };
        if owned.intake.epoch() != item.epoch {
            self.lanes.unassign(lane, slot, sender, drawn);
            return;
        }
        // What is parked goes on with the next renewal, or when the journal takes something.
        if owned.stops(now_ms).is_some() {
            owned.parked.push(item);
            self.lanes.unassign(lane, slot, sender, drawn);
            return;
        }
        if self.automation.concerns_tenants()
            && let Some(info) = self.lane_infos.get(lane)
            && let Some(of) = owned.intake.route_of(item.key)
            && let Some(until_ms) = self
                .automation
                .on_tenant(now_ms, &info.of_tenant(of.tenant))
        {
            owned.intake.postpone(item.key, until_ms);
            self.lanes.unassign(lane, slot, sender, drawn);
            return;
        }
        if self.is_too_late(now_ms, item) {
            self.lanes.unassign(lane, slot, sender, drawn);
            return;
        }
        // It may have waited in its lane for long.
        let Some(owned) = self.partitions.get_mut(&item.partition) else {
            self.lanes.unassign(lane, slot, sender, drawn);
            return;
        };
        if owned
            .intake
            .expire(now_ms, item.key, &ByConfig(self.config.clone()))
        {
            self.lanes.unassign(lane, slot, sender, drawn);
            return;
        }
        if self.suppress(now_ms, item) {
            self.lanes.unassign(lane, slot, sender, drawn);
            return;
        }
        let Some(owned) = self.partitions.get_mut(&item.partition) else {
            return;
        };
        let Some(assigned) = owned.intake.assign(item.key, session) else {
            self.lanes.unassign(lane, slot, sender, drawn);
            return;
        };
        self.counts.assigned += 1;
        let Some(info) = self.lane_infos.get(lane) else {
            return;
        };
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        let news = (state.lanes.insert(lane, info.version) != Some(info.version))
            .then(|| info.to_proto(lane));
        state.held.insert(
            key_of(&assigned.delivery),
            Held {
                lane,
                slot,
                place: assigned.place,
                domain: assigned.domain.clone(),
                drawn,
                has_begun: false,
                has_left: false,
            },
        );
        let assignment = Assignment {
            delivery: Some(assigned.delivery),
            lane: lane.0,
            slot: slot.0,
            sequence: assigned.place.sequence,
            index: assigned.place.index,
            domain: assigned.domain.to_string(),
        };
        if let Some(lane) = news {
            self.send(session, ToSender::Lane(lane));
        }
        self.send(session, ToSender::Assignment(assignment));
    }

    /// Tells every sender what is owned here.
    pub(super) fn announce_owned(&mut self) {
        let sessions: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.welcomed)
            .map(|(id, _)| *id)
            .collect();
        for session in sessions {
            self.send(session, ToSender::Owns(self.owns()));
        }
    }

    fn owns(&self) -> Owns {
        let partitions = self
            .partitions
            .iter()
            .map(|(partition, owned)| PartitionEpoch {
                partition: partition.0,
                epoch: owned.intake.epoch(),
            });
        Owns {
            partitions: partitions.collect(),
        }
    }

    fn send(&mut self, session: SessionId, kind: ToSender) {
        self.outputs.push(Output::ToSender(
            session,
            SchedulerItem { kind: Some(kind) },
        ));
    }
}

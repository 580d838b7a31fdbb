//! The order in which the ready deliveries of a lane leave.
//!
//! A lane has four bands: those of high priority before the others, and in both the first attempts before the
//! retries. "Before" is a share, so that nobody starves: while all wait, [`HIGH_TURNS`] of the high ones leave for each
//! other one, and in both [`FRESH_TURNS`] first attempts for each retry. What one band does not use, the others do.
//!
//! In a band tenants take turns by weight, in a tenant its streams by weight, in a stream its campaigns one by one
//! (deficit round robin; a delivery costs 1, so that a turn is as long as the weight). A tenant that comes (back) into
//! a band where others wait goes first with up to [`AHEAD`] deliveries, as far as it had less than its share before:
//! somebody who sends little need not wait for those who send a lot, and coming and going wins nothing.
//!
//! All is O(1), whatever waits, with one store for all lanes: a lane in which nothing waits costs nothing.

mod slab;
#[cfg(test)]
mod tests;

use hashbrown::HashTable;

use slab::Slab;

/// Deliveries of high priority that leave for each other one while both wait: the others have a fifth.
pub const HIGH_TURNS: u8 = 4;
/// First attempts that leave for each retry of the same priority while both wait: retries have a quarter.
pub const FRESH_TURNS: u8 = 3;
/// Deliveries with which a tenant of weight 1 goes ahead of its turn when it had less than its share.
pub const AHEAD: u32 = 32;
/// Tenants without a delivery that a band remembers.
const RESTING: u32 = 256;
/// A whole turn of a band in the units of its clock.
const TURN: u64 = 1 << 20;

/// No node, and nothing that waits.
const NONE: u32 = u32::MAX;
/// A tenant that was not here before.
const NEVER: u64 = u64::MAX;

const TENANT: u8 = 0;
const STREAM: u8 = 1;
const CAMPAIGN: u8 = 2;

/// Where a delivery stands in line. Names are given by their hashes: when two are equal they stand in one line, no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Goes before others, up to its share.
    pub high: bool,
    /// Was tried before.
    pub retry: bool,
    /// Whose it is.
    pub tenant: u64,
    /// Weight of the tenant, at least 1.
    pub tenant_weight: u16,
    /// Its stream.
    pub stream: u64,
    /// Weight of the stream, at least 1.
    pub stream_weight: u16,
    /// Its campaign.
    pub campaign: u64,
}

/// One tenant with one stream and no campaign.
impl Default for Flow {
    fn default() -> Self {
        Self {
            high: false,
            retry: false,
            tenant: 0,
            tenant_weight: 1,
            stream: 0,
            stream_weight: 1,
            campaign: 0,
        }
    }
}

impl Flow {
    fn band(&self) -> usize {
        usize::from(!self.high) * 2 + usize::from(self.retry)
    }
}

/// A tenant, stream or campaign with something that waits, or a tenant that rests.
#[derive(Debug)]
struct Node {
    key: u64,
    /// Time of the band's clock at which it had its last delivery; of resting tenants.
    rested: u64,
    /// The band (number of the lane's bands × 4 + position) of a tenant, else the node above.
    parent: u32,
    /// The next one of those that take turns with it.
    next: u32,
    /// The last child; children are a ring, the first follows the last. Of a campaign: the last delivery.
    last: u32,
    /// The next of those that rest in the band.
    next_resting: u32,
    /// What is left of its turn; 0 = the turn is not begun.
    left: u32,
    weight: u16,
    level: u8,
    /// In the band's list of those that rest; it may be back meanwhile.
    listed: bool,
}

/// A delivery that waits. Those of a campaign are a ring.
#[derive(Debug)]
struct Waiting<T> {
    item: T,
    affinity: u32,
    next: u32,
}

#[derive(Debug, Clone, Copy)]
struct Band {
    /// The last tenant of the ring.
    last: u32,
    /// Sum of the weights of its tenants with something that waits.
    weight: u32,
    /// Goes on by a turn when every tenant had its weight.
    clock: u64,
    first_resting: u32,
    last_resting: u32,
    resting: u32,
}

#[derive(Debug)]
struct Bands {
    bands: [Band; 4],
    /// High ones since the last other one, while others waited.
    high: u8,
    /// First attempts since the last retry, while retries waited; by priority.
    fresh: [u8; 2],
}

impl Bands {
    fn new() -> Self {
        let band = Band {
            last: NONE,
            weight: 0,
            clock: 0,
            first_resting: NONE,
            last_resting: NONE,
            resting: 0,
        };
        Self {
            bands: [band; 4],
            high: 0,
            fresh: [0; 2],
        }
    }

    fn waits(&self, band: usize) -> bool {
        self.bands[band].last != NONE
    }

    /// The band whose turn it is; something must wait.
    fn turn(&self) -> usize {
        let waits = |priority: usize| self.waits(priority * 2) || self.waits(priority * 2 + 1);
        let priority = usize::from(!waits(0) || (waits(1) && self.high >= HIGH_TURNS));
        let (fresh, retries) = (priority * 2, priority * 2 + 1);
        let is_retries_turn =
            self.waits(retries) && (!self.waits(fresh) || self.fresh[priority] >= FRESH_TURNS);
        if is_retries_turn { retries } else { fresh }
    }

    /// One of the band left.
    fn count(&mut self, band: usize) {
        let (priority, retry) = (band / 2, band % 2 == 1);
        let others_wait = self.waits(2) || self.waits(3);
        self.high = if priority == 0 && others_wait {
            self.high.saturating_add(1)
        } else {
            0
        };
        self.fresh[priority] = if !retry && self.waits(priority * 2 + 1) {
            self.fresh[priority].saturating_add(1)
        } else {
            0
        };
    }
}

/// The queues of all lanes. See the module.
#[derive(Debug)]
pub(crate) struct Fair<T> {
    bands: Slab<Bands>,
    nodes: Slab<Node>,
    items: Slab<Waiting<T>>,
    /// Nodes by what they are children of, and their names.
    index: HashTable<u32>,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self {
            bands: Slab::default(),
            nodes: Slab::default(),
            items: Slab::default(),
            index: HashTable::new(),
        }
    }
}

/// What waits in one lane; it is in a [`Fair`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    bands: u32,
    len: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            bands: NONE,
            len: 0,
        }
    }
}

impl Queue {
    pub(crate) fn len(self) -> usize {
        self.len as usize
    }

    pub(crate) fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// A way from the band down to the delivery whose turn it is.
struct Head {
    band: usize,
    nodes: [u32; 3],
    item: u32,
}

impl<T> Fair<T> {
    /// Adds a delivery.
    pub(crate) fn push(&mut self, queue: &mut Queue, flow: &Flow, item: T, affinity: u32) {
        if queue.bands == NONE {
            queue.bands = self.bands.insert(Bands::new());
        }
        queue.len += 1;
        let band = flow.band();
        let top = queue.bands * 4 + band as u32;
        let tenant = self.child(top, TENANT, flow.tenant, flow.tenant_weight);
        let stream = self.child(tenant, STREAM, flow.stream, flow.stream_weight);
        let campaign = self.child(stream, CAMPAIGN, flow.campaign, 1);
        let item = self.items.insert(Waiting {
            item,
            affinity,
            next: NONE,
        });
        let was_empty = self.append(campaign, item);
        let was_empty = was_empty && self.join(stream, campaign);
        if was_empty && self.join(tenant, stream) {
            self.join_band(queue.bands, band, tenant);
        }
    }

    /// The next delivery with its affinity.
    pub(crate) fn peek(&self, queue: Queue) -> Option<(&T, u32)> {
        let head = self.head(queue)?;
        let waiting = self.items.get(head.item)?;
        Some((&waiting.item, waiting.affinity))
    }

    /// Takes the next delivery.
    pub(crate) fn pop(&mut self, queue: &mut Queue) -> Option<(Flow, T, u32)> {
        let head = self.head(*queue)?;
        let flow = self.flow(&head);
        let [tenant, stream, campaign] = head.nodes;
        let waiting = self.items.remove(head.item)?;
        let last = &mut self.nodes.at(campaign).last;
        if *last == head.item {
            *last = NONE;
        } else {
            self.items.at(*last).next = waiting.next;
        }
        self.serve(campaign, stream);
        self.serve(stream, tenant);
        self.serve_tenant(queue.bands, head.band, tenant);
        queue.len -= 1;
        if queue.len == 0 {
            self.bands.remove(queue.bands);
            queue.bands = NONE;
        }
        Some((flow, waiting.item, waiting.affinity))
    }

    /// Whether such a delivery is in the queue; looks at all of them.
    pub(crate) fn holds(&self, queue: Queue, is_it: impl Fn(&T) -> bool) -> bool {
        let Some(bands) = self.bands.get(queue.bands) else {
            return false;
        };
        let mut tenants = bands.bands.iter().flat_map(|band| self.ring(band.last));
        tenants.any(|tenant| {
            let mut campaigns = self
                .ring(tenant.last)
                .flat_map(|stream| self.ring(stream.last));
            campaigns.any(|campaign| self.items_of(campaign).any(&is_it))
        })
    }

    /// The nodes of the ring with this last one.
    fn ring(&self, last: u32) -> impl Iterator<Item = &Node> {
        let first = self.nodes.get(last).map(|last| last.next);
        let next = move |&node: &u32| match node == last {
            true => None,
            false => self.nodes.get(node).map(|node| node.next),
        };
        std::iter::successors(first, next).filter_map(|node| self.nodes.get(node))
    }

    fn items_of(&self, campaign: &Node) -> impl Iterator<Item = &T> {
        let last = campaign.last;
        let first = self.items.get(last).map(|last| last.next);
        let next = move |&item: &u32| match item == last {
            true => None,
            false => self.items.get(item).map(|item| item.next),
        };
        std::iter::successors(first, next)
            .filter_map(|item| self.items.get(item))
            .map(|waiting| &waiting.item)
    }

    /// Takes out what is not to stay. What stays keeps its order, and begins its turns anew.
    pub(crate) fn retain(&mut self, queue: &mut Queue, keep: impl Fn(&T) -> bool) {
        let mut kept = Vec::new();
        while let Some((flow, item, affinity)) = self.pop(queue) {
            if keep(&item) {
                kept.push((flow, item, affinity));
            }
        }
        for (flow, item, affinity) in kept {
            self.push(queue, &flow, item, affinity);
        }
    }

    fn head(&self, queue: Queue) -> Option<Head> {
        let bands = self.bands.get(queue.bands)?;
        let band = bands.turn();
        let first = |last: u32| self.nodes.get(last).map(|node| node.next);
        let tenant = first(bands.bands[band].last)?;
        let stream = first(self.nodes.get(tenant)?.last)?;
        let campaign = first(self.nodes.get(stream)?.last)?;
        let item = self.items.get(self.nodes.get(campaign)?.last)?.next;
        Some(Head {
            band,
            nodes: [tenant, stream, campaign],
            item,
        })
    }

    fn flow(&self, head: &Head) -> Flow {
        let node = |node: u32| {
            self.nodes
                .get(node)
                .map_or((0, 1), |node| (node.key, node.weight))
        };
        let [
            (tenant, tenant_weight),
            (stream, stream_weight),
            (campaign, _),
        ] = head.nodes.map(node);
        Flow {
            high: head.band / 2 == 0,
            retry: head.band % 2 == 1,
            tenant,
            tenant_weight,
            stream,
            stream_weight,
            campaign,
        }
    }

    /// The child of this name; it is made when there is none, and then has nothing that waits yet.
    fn child(&mut self, parent: u32, level: u8, key: u64, weight: u16) -> u32 {
        let hash = mix(parent, level, key);
        let nodes = &self.nodes;
        let is_it = |&node: &u32| {
            nodes
                .get(node)
                .is_some_and(|node| node.key == key && node.parent == parent && node.level == level)
        };
        let weight = weight.max(1);
        if let Some(&node) = self.index.find(hash, is_it) {
            let found = self.nodes.at(node);
            // Weights of those that take turns are in the sum of their band.
            if found.last == NONE {
                found.weight = weight;
            }
            return node;
        }
        let node = self.nodes.insert(Node {
            key,
            rested: NEVER,
            parent,
            next: NONE,
            last: NONE,
            next_resting: NONE,
            left: 0,
            weight,
            level,
            listed: false,
        });
        let nodes = &self.nodes;
        self.index.insert_unique(hash, node, |&node| {
            nodes
                .get(node)
                .map_or(0, |node| mix(node.parent, node.level, node.key))
        });
        node
    }

    fn forget(&mut self, node: u32) {
        let Some(removed) = self.nodes.remove(node) else {
            return;
        };
        let hash = mix(removed.parent, removed.level, removed.key);
        if let Ok(entry) = self.index.find_entry(hash, |&found| found == node) {
            entry.remove();
        }
    }

    /// Appends a delivery to a campaign. True when it is its first.
    fn append(&mut self, campaign: u32, item: u32) -> bool {
        let last = std::mem::replace(&mut self.nodes.at(campaign).last, item);
        let first = match self.items.get_mut(last) {
            None => item,
            Some(last) => std::mem::replace(&mut last.next, item),
        };
        self.items.at(item).next = first;
        last == NONE
    }

    /// Appends a node to those that take turns under a parent. True when it is the first.
    fn join(&mut self, parent: u32, node: u32) -> bool {
        let last = std::mem::replace(&mut self.nodes.at(parent).last, node);
        self.link(last, node);
        last == NONE
    }

    /// Puts a node behind another one into its ring, or into a ring of its own.
    fn link(&mut self, behind: u32, node: u32) {
        let next = match self.nodes.get_mut(behind) {
            None => node,
            Some(behind) => std::mem::replace(&mut behind.next, node),
        };
        self.nodes.at(node).next = next;
    }

    fn join_band(&mut self, bands: u32, band: usize, tenant: u32) {
        let band = &mut self.bands.at(bands).bands[band];
        let node = self.nodes.at(tenant);
        let weight = u32::from(node.weight);
        band.weight += weight;
        let most = AHEAD.max(weight);
        node.left = if band.last == NONE {
            0
        } else if node.rested == NEVER {
            most
        } else {
            let turns = (band.clock - node.rested) / (TURN / u64::from(weight));
            let missed = u32::try_from(turns).unwrap_or(most);
            node.left.saturating_add(missed).min(most)
        };
        let goes_first = node.left > 0;
        let last = band.last;
        if !goes_first {
            band.last = tenant;
        }
        self.link(last, tenant);
    }

    /// A stream or campaign, the first of those under its parent, had one of its deliveries leave.
    fn serve(&mut self, node: u32, parent: u32) {
        let served = self.nodes.at(node);
        served.left = match served.left {
            0 => u32::from(served.weight) - 1,
            left => left - 1,
        };
        let (is_empty, is_over, next) = (served.last == NONE, served.left == 0, served.next);
        let last = self.nodes.at(parent).last;
        if is_empty {
            if last == node {
                self.nodes.at(parent).last = NONE;
            } else {
                self.nodes.at(last).next = next;
            }
            self.forget(node);
        } else if is_over {
            self.nodes.at(parent).last = node;
        }
    }

    /// The first tenant of a band had one of its deliveries leave.
    fn serve_tenant(&mut self, bands: u32, number: usize, tenant: u32) {
        let all = self.bands.at(bands);
        all.count(number);
        let band = &mut all.bands[number];
        band.clock += TURN / u64::from(band.weight.max(1));
        let served = self.nodes.at(tenant);
        served.left = match served.left {
            0 => u32::from(served.weight) - 1,
            left => left - 1,
        };
        if served.last != NONE {
            if served.left == 0 {
                band.last = tenant;
            }
            return;
        }
        let (next, weight) = (served.next, served.weight);
        band.weight -= u32::from(weight);
        served.rested = band.clock;
        let is_listed = std::mem::replace(&mut served.listed, true);
        if band.last == tenant {
            band.last = NONE;
        } else {
            self.nodes.at(band.last).next = next;
        }
        if !is_listed {
            self.nodes.at(tenant).next_resting = NONE;
            match self.nodes.get_mut(band.last_resting) {
                None => band.first_resting = tenant,
                Some(last) => last.next_resting = tenant,
            }
            band.last_resting = tenant;
            band.resting += 1;
        }
        let mut band = *band;
        // Nobody is before or behind when nobody waits.
        let remembered = if band.last == NONE { 0 } else { RESTING };
        while band.resting > remembered {
            self.forget_resting(&mut band);
        }
        self.bands.at(bands).bands[number] = band;
    }

    fn forget_resting(&mut self, band: &mut Band) {
        let oldest = band.first_resting;
        let node = self.nodes.at(oldest);
        node.listed = false;
        band.first_resting = node.next_resting;
        if band.first_resting == NONE {
            band.last_resting = NONE;
        }
        band.resting -= 1;
        if node.last == NONE {
            self.forget(oldest);
        }
    }
}

fn mix(parent: u32, level: u8, key: u64) -> u64 {
    let z = (key ^ (u64::from(parent) << 8 | u64::from(level))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

//! Where the links in messages lead: readers who want no more of a stream (RFC 8058, ADR 41).
//!
//! `/u/<link>` is all there is. GET shows a page that asks, and does nothing else: programs follow links. POST with
//! `List-Unsubscribe=One-Click`, by a mail host or by the page's button, is an unsubscribe, and is answered with 200 only after its
//! event is stored. There are no cookies, no redirects, and nothing of what a link says is shown: who has it may be somebody else.

mod form;
mod page;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bounce::{Link, TokenError, TokenKeys};
use proto::event::event::Kind;
use proto::event::{Event, Unsubscribe};
use runtime::{Method, Request, Response, Shutdown, TokenKeyring, WebServer, WebStats, now_ms};
use spool::EventStore;
use tokio::sync::Semaphore;

use crate::metrics::LinkMetrics;
use form::By;
use page::{Language, Page};

/// What every path begins with that leads anywhere.
const PREFIX: &str = "/u/";
/// Unsubscribes that are being stored at once; more are told to come again.
const MOST_STORING: usize = 64;
/// For storing one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers the links.
pub(crate) struct Links {
    keys: Arc<TokenKeyring>,
    events: EventStore,
    metrics: LinkMetrics,
    storing: Arc<Semaphore>,
}

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Only a page.
    Page(Page),
    /// Somebody wants no more; the link's text is the unsubscribe's name.
    Unsubscribe(Box<Unsubscribed>),
}

#[derive(Debug, PartialEq, Eq)]
struct Unsubscribed {
    link: Link<String>,
    id: [u8; 16],
    by: By,
}

impl Links {
    pub(crate) fn new(keys: Arc<TokenKeyring>, events: EventStore) -> Self {
        Self {
            keys,
            events,
            metrics: LinkMetrics::new(),
            storing: Arc::new(Semaphore::new(MOST_STORING)),
        }
    }

    /// Serves until shutdown.
    pub(crate) async fn serve(self, server: WebServer, shutdown: Shutdown) {
        let stats: Arc<dyn WebStats> = Arc::new(self.metrics.clone());
        let links = Arc::new(self);
        let answer = move |request| {
            let links = Arc::clone(&links);
            async move { links.answer(request).await }
        };
        server.serve(answer, stats, shutdown).await;
    }

    async fn answer(&self, request: Request) -> Response {
        let language = Language::of(request.languages.as_deref());
        let page = match asked(&self.keys.keys(), &request, now_ms() / 1000) {
            Asked::Page(page) => page,
            Asked::Unsubscribe(unsubscribed) => match self.store(&request, &unsubscribed).await {
                true => Page::Done,
                false => Page::Unavailable,
            },
        };
        self.metrics.answered(page.name());
        page.response(language)
    }

    /// Whether it is stored.
    async fn store(&self, request: &Request, unsubscribed: &Unsubscribed) -> bool {
        let Ok(_permit) = self.storing.try_acquire() else {
            return false;
        };
        let event = event(unsubscribed, request, now_ms());
        let stored = self
            .events
            .store_as(unsubscribed.id, "feedback", vec![event]);
        match tokio::time::timeout(PATIENCE, stored).await {
            Ok(Ok(())) => {
                let message_id = unsubscribed.link.message;
                let by = unsubscribed.by.as_str();
                tracing::info!(%message_id, by, "a reader has unsubscribed");
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "an unsubscribe could not be stored; who asked for it was told to come again");
                false
            }
            Err(_) => {
                tracing::warn!(
                    "an unsubscribe was not stored in time; who asked for it was told to come again"
                );
                false
            }
        }
    }
}

/// What a request comes to at `now`, Unix seconds. What is wrong with the link is said first.
fn asked(keys: &TokenKeys, request: &Request, now: u64) -> Asked {
    if request.method == Method::Other {
        return Asked::Page(Page::NotAllowed);
    }
    let Some(text) = request.path.strip_prefix(PREFIX) else {
        return Asked::Page(Page::Unknown);
    };
    let link = match keys.read_link(text, now) {
        Ok(link) => link,
        // Made by a process that has a new key already.
        Err(TokenError::UnknownKey) => return Asked::Page(Page::Unavailable),
        Err(TokenError::Expired) => return Asked::Page(Page::Expired),
        Err(_) => return Asked::Page(Page::Unknown),
    };
    if request.method != Method::Post {
        return Asked::Page(Page::Question);
    }
    match form::read(request.content_type.as_deref(), &request.body) {
        None => Asked::Page(Page::NotOneClick),
        Some(by) => Asked::Unsubscribe(Box::new(Unsubscribed {
            link,
            id: id_of(text),
            by,
        })),
    }
}

/// Of the event of a link: the same whenever it is used.
fn id_of(text: &str) -> [u8; 16] {
    let hash = digest(&SHA256, format!("unsubscribe\0{text}").as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_ref()[..16]);
    // RFC 9562 section 5.8: a UUID of an own kind.
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

fn event(unsubscribed: &Unsubscribed, request: &Request, now_ms: u64) -> Event {
    let Unsubscribed { link, by, .. } = unsubscribed;
    let unsubscribe = Unsubscribe {
        message_id: link.message.as_bytes().to_vec().into(),
        stream: link.stream.clone(),
        recipient: link.recipient.clone(),
        by: by.as_str().to_owned(),
    };
    Event {
        at_ms: now_ms,
        tenant: link.tenant.clone(),
        network: runtime::network_of(request.client).to_string(),
        kind: Some(Kind::Unsubscribe(unsubscribe)),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests;

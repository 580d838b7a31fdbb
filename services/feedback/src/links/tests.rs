use std::net::IpAddr;

use bytes::Bytes;
use mail::MessageId;

use super::*;

const NOW: u64 = 1_796_000_000;
const DAY: u64 = 86_400;
const RECIPIENT: &str = "tired@receiver.example";

fn keys() -> TokenKeys {
    TokenKeys::parse("1 the first secret of ours").unwrap()
}

fn path(keys: &TokenKeys) -> String {
    let link = Link {
        message: MessageId::from_bytes([7; 16]),
        tenant: "acme",
        stream: "news",
        recipient: RECIPIENT,
    };
    format!("/u/{}", keys.mint_link(&link, NOW + 30 * DAY).unwrap())
}

fn request(method: Method, path: &str, body: &'static str) -> Request {
    Request {
        method,
        path: path.to_owned(),
        content_type: Some("application/x-www-form-urlencoded".to_owned()),
        languages: None,
        client: IpAddr::from([192, 0, 2, 77]),
        body: Bytes::from_static(body.as_bytes()),
    }
}

const WISH: &str = "List-Unsubscribe=One-Click";

#[test]
fn only_a_post_that_says_so_is_an_unsubscribe() {
    let keys = keys();
    let path = path(&keys);
    let page = |method, path: &str, body, now| match asked(&keys, &request(method, path, body), now)
    {
        Asked::Page(page) => Some(page),
        Asked::Unsubscribe(_) => None,
    };
    let newer = self::path(&TokenKeys::parse("2 the second secret of ours").unwrap());
    let forged = format!("{}x", &path[..path.len() - 1]);
    for (method, path, body, now, expected) in [
        (Method::Get, &*path, "", NOW, Some(Page::Question)),
        (Method::Head, &path, "", NOW, Some(Page::Question)),
        (Method::Get, &path, WISH, NOW, Some(Page::Question)),
        (Method::Other, &path, WISH, NOW, Some(Page::NotAllowed)),
        (Method::Post, &path, "", NOW, Some(Page::NotOneClick)),
        (Method::Post, &path, WISH, NOW, None),
        (
            Method::Post,
            &path,
            WISH,
            NOW + 40 * DAY,
            Some(Page::Expired),
        ),
        (Method::Get, &path, "", NOW + 40 * DAY, Some(Page::Expired)),
        (Method::Post, &forged, WISH, NOW, Some(Page::Unknown)),
        (Method::Post, &newer, WISH, NOW, Some(Page::Unavailable)),
        (Method::Get, "/", "", NOW, Some(Page::Unknown)),
        (Method::Get, "/u/", "", NOW, Some(Page::Unknown)),
        (Method::Post, "/favicon.ico", WISH, NOW, Some(Page::Unknown)),
    ] {
        assert_eq!(
            page(method, path, body, now),
            expected,
            "{method:?} {path} {body}"
        );
    }
}

#[test]
fn the_event_says_whose_it_is_and_has_the_same_id_each_time() {
    let keys = keys();
    let path = path(&keys);
    let told = |body, by: &str| {
        let request = request(Method::Post, &path, body);
        let Asked::Unsubscribe(unsubscribed) = asked(&keys, &request, NOW) else {
            panic!("it is one");
        };
        let event = event(&unsubscribed, &request, NOW * 1000);
        assert_eq!(
            (event.tenant.as_str(), event.network.as_str()),
            ("acme", "192.0.2.0/24")
        );
        let Some(Kind::Unsubscribe(told)) = event.kind else {
            panic!("of another kind");
        };
        assert_eq!(told.by, by);
        assert_eq!(
            (told.stream.as_str(), told.recipient.as_str()),
            ("news", RECIPIENT)
        );
        assert_eq!(told.message_id, &[7_u8; 16][..]);
        unsubscribed.id
    };
    let id = told(WISH, "one_click");
    assert_eq!(told("List-Unsubscribe=One-Click&by=page", "page"), id);
    assert_eq!((id[6] >> 4, id[8] >> 6), (8, 2));
}

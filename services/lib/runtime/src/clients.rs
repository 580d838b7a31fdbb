//! How many connections each client has, so that one can't take those of all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits. A socket of both kinds tells IPv4 addresses as
/// mapped ones (`::ffff:192.0.2.1`): they count as what they are.
pub fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let bits = u128::from(address) >> 64 << 64;
            IpAddr::V6(bits.into())
        }
    }
}

/// The network of a client, by which it is told: IPv4 /24 or IPv6 /48.
pub fn network_of(client: IpAddr) -> IpNet {
    let client = client.to_canonical();
    let bits = if client.is_ipv4() { 24 } else { 48 };
    IpNet::new(client, bits)
        .map(|network| network.trunc())
        .unwrap_or_else(|_| client.into())
}

/// Open connections by client network: an IPv4 address, an IPv6 /64. Holds as many entries as there are
/// networks with connections.
#[derive(Debug, Default)]
pub struct Clients {
    open: Mutex<HashMap<IpAddr, u32>>,
}

/// One connection of a client, as long as it lives.
#[derive(Debug)]
pub struct ClientSlot {
    clients: Arc<Clients>,
    network: IpAddr,
}

impl Clients {
    /// `None` when the client's network has `most` already.
    pub fn enter(self: &Arc<Self>, client: IpAddr, most: u32) -> Option<ClientSlot> {
        let network = one_client(client);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(ClientSlot {
            clients: Arc::clone(self),
            network,
        })
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let open = &self.clients.open;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_own_and_those_that_leave_make_room() {
        let clients = Arc::new(Clients::default());
        let enter = |client: &str| clients.enter(client.parse().unwrap(), 2);
        let first = enter("2001:db8::1").unwrap();
        let second = enter("2001:db8::2").unwrap();
        assert!(enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::3").is_some());
        assert!(enter("192.0.2.1").is_some());
        let mapped = enter("::ffff:192.0.2.7").unwrap();
        let same = enter("192.0.2.7").unwrap();
        assert!(enter("::ffff:192.0.2.7").is_none());
        assert!(enter("::ffff:192.0.2.8").is_some());
        let network = network_of("::ffff:192.0.2.7".parse().unwrap());
        assert_eq!(network.to_string(), "192.0.2.0/24");
        drop(first);
        assert!(enter("2001:db8::3").is_some());
        drop((second, mapped, same));
        assert!(clients.open.lock().unwrap().is_empty());
    }
}

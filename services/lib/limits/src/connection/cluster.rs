//! Which server of a cluster has which slots.

use redis::{RedisResult, Value};

use super::server::{Address, Server, field, malformed};
use crate::keys::Shard;

/// What a server of the cluster says about all of them.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Whether that server takes part in the cluster, and the last change that it has heard of: the greatest knows best.
    pub(crate) knows: (bool, u64),
    /// First and last slot, and the master that has them.
    ranges: Vec<(u16, u16, Address)>,
}

impl Topology {
    pub(crate) async fn ask(server: &mut Server) -> RedisResult<Self> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("CLUSTER").arg("INFO");
        pipeline.cmd("CLUSTER").arg("SLOTS");
        let (info, slots): (String, Vec<Vec<Value>>) =
            pipeline.query_async(&mut server.connection).await?;
        let asked = server.target.address();
        let ranges = slots
            .iter()
            .map(|range| read_range(range, asked.as_ref()))
            .collect::<RedisResult<_>>()?;
        let epoch = field(&info, "cluster_current_epoch").and_then(|epoch| epoch.parse().ok());
        let is_ok = field(&info, "cluster_state") == Some("ok");
        Ok(Self {
            knows: (is_ok, epoch.unwrap_or(0)),
            ranges,
        })
    }

    /// `None` when no server has its slot.
    pub(crate) fn home(&self, shard: Shard) -> Option<&Address> {
        let slot = shard.slot();
        self.ranges
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&slot))
            .map(|(_, _, address)| address)
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.ranges.iter().map(|(_, _, address)| address)
    }
}

/// `first last [host port …] …`: the master is the first of the servers. Without a host it is the one that was asked.
fn read_range(range: &[Value], asked: Option<&Address>) -> RedisResult<(u16, u16, Address)> {
    let wrong = || malformed("CLUSTER SLOTS is not understood");
    let [first, last, Value::Array(master), ..] = range else {
        return Err(wrong());
    };
    let [host, port, ..] = master.as_slice() else {
        return Err(wrong());
    };
    let host: Option<String> = redis::from_redis_value_ref(host)?;
    let host = host
        .filter(|host| !host.is_empty() && host != "?")
        .or_else(|| asked.map(|(host, _)| host.clone()))
        .ok_or_else(wrong)?;
    let address = (host, redis::from_redis_value_ref(port)?);
    Ok((
        redis::from_redis_value_ref(first)?,
        redis::from_redis_value_ref(last)?,
        address,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_names_its_master_or_else_the_one_that_was_asked_is_meant() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let range = |host: Value| {
            let master = Value::Array(vec![
                host,
                Value::Int(7001),
                text("id"),
                Value::Array(vec![]),
            ]);
            let replica = Value::Array(vec![text("10.0.0.9"), Value::Int(7002), text("id")]);
            [Value::Int(0), Value::Int(5460), master, replica]
        };
        let asked = ("redis.example".to_owned(), 6379);
        for (host, expected) in [
            (text("10.0.0.1"), "10.0.0.1"),
            (text(""), "redis.example"),
            (text("?"), "redis.example"),
            (Value::Nil, "redis.example"),
        ] {
            let read = read_range(&range(host), Some(&asked)).unwrap();
            assert_eq!(read, (0, 5460, (expected.to_owned(), 7001)));
        }
        assert!(read_range(&[Value::Int(0)], None).is_err());
    }
}

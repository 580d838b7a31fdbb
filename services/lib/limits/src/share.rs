//! What holds without Redis.

/// Uses per window that the owner of the partitions `owned` (of `partitions` in all) may make of a limit
/// when Redis cannot be asked: limit / P for each partition, and the remainder for the partition that
/// `lane_hash % P` names. Over all owners the sum is the limit exactly, as long as each partition has one
/// owner. Zero means: wait. Partitions that don't exist or are named twice count once or not at all.
pub fn safe_share(limit: u64, partitions: u32, owned: &[u32], lane_hash: u64) -> u64 {
    let Some(share) = limit.checked_div(u64::from(partitions)) else {
        return 0;
    };
    let remainder = limit % u64::from(partitions);
    let favoured = lane_hash % u64::from(partitions);
    let mut distinct: Vec<u32> = owned
        .iter()
        .copied()
        .filter(|id| *id < partitions)
        .collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
        .iter()
        .map(|id| {
            if u64::from(*id) == favoured {
                share + remainder
            } else {
                share
            }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_limit_however_the_partitions_are_spread() {
        for (limit, partitions, hash) in [
            (100, 4, 0),
            (7, 4, 3),
            (1, 8, 13),
            (0, 4, 1),
            (u64::MAX, 3, 5),
        ] {
            let whole: Vec<u32> = (0..partitions).collect();
            assert_eq!(safe_share(limit, partitions, &whole, hash), limit);
            let apart: u64 = whole
                .iter()
                .map(|id| safe_share(limit, partitions, &[*id], hash))
                .sum();
            assert_eq!(apart, limit);
        }
    }

    #[test]
    fn the_remainder_goes_to_the_partition_that_the_hash_names() {
        assert_eq!(safe_share(3, 4, &[2], 6), 3);
        assert_eq!(safe_share(3, 4, &[0, 1, 3], 6), 0);
    }

    #[test]
    fn nothing_owned_or_nothing_there_is_nothing() {
        assert_eq!(safe_share(100, 4, &[], 1), 0);
        assert_eq!(safe_share(100, 0, &[0], 1), 0);
        assert_eq!(safe_share(100, 4, &[9, 1, 1], 0), 25);
    }
}

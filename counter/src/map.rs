//! Which addresses belong to which slot.

/// Disjoint ranges of addresses, ascending, each with its slot.
#[derive(Debug, Default)]
pub struct Map {
    ranges: Vec<(u64, u64, usize)>,
}

impl Map {
    /// Reads lines `BEGIN END SLOT`: addresses in hexadecimal, ascending and disjoint, the slot in decimal.
    pub fn parse(text: &str) -> Result<Map, String> {
        let mut ranges: Vec<(u64, u64, usize)> = Vec::new();
        for line in text.lines() {
            let range = parse_line(line).ok_or_else(|| format!("'{line}' is not 'BEGIN END SLOT'"))?;
            if range.0 > range.1 || ranges.last().is_some_and(|last| last.1 > range.0) {
                return Err(format!("the range '{line}' does not ascend"));
            }
            ranges.push(range);
        }
        Ok(Map { ranges })
    }

    /// Number of slots: slot 0 and all that the map names.
    pub fn slots(&self) -> usize {
        self.ranges.iter().map(|range| range.2 + 1).max().unwrap_or(1)
    }

    /// The slot whose range holds `address`.
    pub fn slot(&self, address: u64) -> Option<usize> {
        let at = self.ranges.partition_point(|range| range.1 <= address);
        self.ranges.get(at).filter(|range| range.0 <= address).map(|range| range.2)
    }
}

fn parse_line(line: &str) -> Option<(u64, u64, usize)> {
    let mut words = line.split(' ');
    let begin = u64::from_str_radix(words.next()?, 16).ok()?;
    let end = u64::from_str_radix(words.next()?, 16).ok()?;
    let slot = words.next()?.parse().ok()?;
    words.next().is_none().then_some((begin, end, slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_find_their_slot() {
        let map = Map::parse("10 14 1\n14 20 2\n30 34 1\n").expect("a good map");
        assert_eq!(map.slots(), 3);
        let slots = [0xf, 0x10, 0x13, 0x14, 0x1f, 0x20, 0x33, 0x34].map(|address| map.slot(address));
        assert_eq!(slots, [None, Some(1), Some(1), Some(2), Some(2), None, Some(1), None]);
        assert_eq!(Map::parse("").expect("no range").slots(), 1);
    }

    #[test]
    fn wrong_lines_are_refused() {
        for (text, word) in [("10 20", "10 20"), ("10 xy 1", "xy"), ("10 20 1 2", "1 2"), ("8 9 1\n4 5 2", "4 5 2")] {
            let error = Map::parse(text).expect_err("a bad map");
            assert!(error.contains(word), "{error}");
        }
    }
}

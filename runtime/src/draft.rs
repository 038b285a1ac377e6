//! Guesses of the tokens to come, from those that were: prompt lookup.
//!
//! Text repeats itself: names, phrases, whatever is quoted from the prompt. The longest run of latest tokens that occurred
//! before is looked up, and what followed it then is the guess. Source: Saxena 2023, "Prompt Lookup Decoding",
//! and Yang et al. 2023, arXiv:2304.04487. [`Session::eval_draft`](crate::session::Session::eval_draft) finds out
//! which guesses are right.

/// Latest tokens that are compared at most.
const LONGEST: usize = 8;

/// Latest tokens that must have occurred: fewer are chance.
const SHORTEST: usize = 2;

/// Fills `guess` with what followed the longest earlier occurrence of the latest of `tokens`, the most recent of several;
/// returns how much of it: all or nothing.
///
/// Where the guess reaches the present it goes on with itself, so that what repeats goes on repeating.
pub fn lookup(tokens: &[u32], guess: &mut [u32]) -> usize {
    let Some(from) = find(tokens) else { return 0 };
    for i in 0..guess.len() {
        guess[i] = match tokens.get(from + i) {
            Some(token) => *token,
            None => guess[from + i - tokens.len()],
        };
    }
    guess.len()
}

/// Position after the longest earlier occurrence of the latest tokens.
fn find(tokens: &[u32]) -> Option<usize> {
    let (mut longest, mut found) = (SHORTEST - 1, None);
    for end in (1..tokens.len()).rev() {
        let pairs = tokens[..end].iter().rev().zip(tokens.iter().rev()).take(LONGEST);
        let common = pairs.take_while(|(then, now)| then == now).count();
        if common > longest {
            (longest, found) = (common, Some(end));
        }
        if longest == LONGEST {
            break;
        }
    }
    found
}

/// How many tokens to guess: more while guesses are right, fewer after a wrong one, none for a while where most are.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    most: usize,
    length: usize,
    /// Tokens until the next guess.
    rest: usize,
    /// Wrong guesses in a row.
    misses: u32,
}

/// Rest after misses in a row, tokens: doubles up to this.
const LONGEST_REST: usize = 32;

impl Pace {
    /// Guesses of at most `most` tokens.
    pub fn new(most: usize) -> Pace {
        Pace { most, length: most.min(2), rest: 0, misses: 0 }
    }

    /// How many tokens to guess now.
    pub fn length(&self) -> usize {
        if self.rest > 0 { 0 } else { self.length }
    }

    /// Learns that `right` of `guessed` tokens were right.
    pub fn learn(&mut self, guessed: usize, right: usize) {
        if guessed == 0 {
            self.rest = self.rest.saturating_sub(1);
        } else if right == 0 {
            self.misses = (self.misses + 1).min(16);
            self.length = self.most.min(2);
            self.rest = (1usize << self.misses >> 1).min(LONGEST_REST);
        } else {
            self.misses = 0;
            self.length = if right == guessed { (2 * guessed).min(self.most) } else { right.max(2).min(self.most) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(tokens: &[u32], n: usize) -> Vec<u32> {
        let mut guess = vec![0; n];
        let found = lookup(tokens, &mut guess);
        guess.truncate(found);
        guess
    }

    #[test]
    fn what_followed_is_guessed() {
        assert_eq!(guess(&[1, 2, 3, 4, 9, 2, 3], 2), [4, 9]);
        // One token is chance.
        assert_eq!(guess(&[1, 2, 3, 9, 2], 2), []);
        // The longer occurrence counts, then the later one.
        assert_eq!(guess(&[1, 2, 3, 5, 8, 2, 3, 6, 1, 2, 3], 1), [5]);
        assert_eq!(guess(&[2, 3, 5, 8, 2, 3, 6, 9, 2, 3], 1), [6]);
        assert_eq!((guess(&[], 3), guess(&[7], 3)), (vec![], vec![]));
    }

    #[test]
    fn repetition_goes_on() {
        assert_eq!(guess(&[5, 1, 2, 1, 2], 5), [1, 2, 1, 2, 1]);
        assert_eq!(guess(&[4, 4, 4], 3), [4, 4, 4]);
    }

    #[test]
    fn the_pace_follows_success() {
        let mut pace = Pace::new(7);
        let mut lengths = Vec::new();
        for right in [2, 4, 7, 3, 0, 0, 0, 0, 0, 0] {
            lengths.push(pace.length());
            pace.learn(pace.length(), right);
        }
        // Right ones double it; after misses it rests for 1, then 2 tokens.
        assert_eq!(lengths, [2, 4, 7, 7, 3, 0, 2, 0, 0, 2]);
        let mut none = Pace::new(0);
        none.learn(0, 0);
        assert_eq!(none.length(), 0);
    }
}

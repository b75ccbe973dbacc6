//! Randomness as an argument: the [`Random`] trait, and the seeded generator tests and the simulator replay.
//!
//! [`SeededRandom`] is a statistical generator, never a source of secrets; the platform's adapter is.

use std::cell::Cell;

use base64ct::{Base64UrlUnpadded, Encoding};

/// Where randomness comes from.
pub trait Random {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);

    /// A uniformly random integer.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A uniformly random number, at least 0 and less than 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    fn unit(&self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A random integer less than `bound`; 0 when `bound` is 0. The bias is below `bound` / 2^64.
    fn below(&self, bound: u64) -> u64 {
        let product = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }
}

/// A name that nothing else has: 96 random bits, 16 characters of base64url. Not a secret.
pub fn unique_name(random: &impl Random) -> String {
    let mut bytes = [0; 12];
    random.fill(&mut bytes);
    Base64UrlUnpadded::encode_string(&bytes)
}

/// A generator that gives the same numbers for the same seed (`SplitMix64`: Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct SeededRandom(Cell<u64>);

impl SeededRandom {
    /// The generator of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            for (byte, random) in chunk.iter_mut().zip(self.next_u64().to_le_bytes()) {
                *byte = random;
            }
        }
    }

    fn next_u64(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

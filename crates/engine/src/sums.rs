//! Checksums of segments: CRC-32C (RFC 3720, appendix B.4) of every block of
//! [`SEGMENT_BLOCK_BYTES`], so that a range can be checked without the rest.

use crc::{CRC_32_ISCSI, Crc, Digest, Table};
use protocol::limits::SEGMENT_BLOCK_BYTES;

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// CRC-32C of some bytes.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// One sum that stands for a whole object: the CRC-32C of its blocks' sums.
#[must_use]
pub fn sum_of(sums: &[u32]) -> u32 {
    let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
    crc32c(&bytes)
}

/// Whether whole blocks, the last of an object perhaps shorter, have their sums.
#[must_use]
pub fn verify(bytes: &[u8], sums: &[u32]) -> bool {
    let block = usize::try_from(SEGMENT_BLOCK_BYTES).unwrap_or(usize::MAX);
    bytes.len().div_ceil(block) == sums.len()
        && bytes.chunks(block).zip(sums).all(|(bytes, sum)| crc32c(bytes) == *sum)
}

/// Sums of an object that comes in pieces of any size.
#[derive(Default)]
pub(crate) struct BlockSums {
    sums: Vec<u32>,
    open: Option<Digest<'static, u32, Table<16>>>,
    /// Bytes in the open block.
    filled: usize,
}

impl BlockSums {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        let block = usize::try_from(SEGMENT_BLOCK_BYTES).unwrap_or(usize::MAX);
        while !bytes.is_empty() {
            let room = block.saturating_sub(self.filled).min(bytes.len());
            let (now, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.open.get_or_insert_with(|| CRC.digest()).update(now);
            self.filled += now.len();
            if self.filled == block {
                self.close();
            }
            bytes = rest;
        }
    }

    fn close(&mut self) {
        self.sums.extend(self.open.take().map(|digest| digest.finalize()));
        self.filled = 0;
    }

    pub(crate) fn finish(mut self) -> Vec<u32> {
        self.close();
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_value_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_flipped_bit_and_a_missing_byte_are_seen() {
        let mut bytes = vec![7; 100_000];
        let sums: Vec<u32> = bytes.chunks(65_536).map(crc32c).collect();
        assert!(verify(&bytes, &sums));
        assert!(!verify(&bytes[..99_999], &sums));
        assert!(!verify(&bytes[..65_536], &sums));
        bytes[70_000] ^= 1;
        assert!(!verify(&bytes, &sums));
        assert!(verify(&[], &[]));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in prop::collection::vec(0..200_000_usize, 0..6)) {
            let bytes: Vec<u8> = (0..200_000_u32).map(|n| ((n * 7) >> 3) as u8).collect();
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut sums = BlockSums::default();
            let mut at = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                sums.update(&bytes[at..cut]);
                at = cut;
            }
            prop_assert!(verify(&bytes, &sums.finish()));
        }
    }
}

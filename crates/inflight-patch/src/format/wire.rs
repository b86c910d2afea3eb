//! Numbers and byte strings on the wire, and the cursor that reads them with bounds.

use crate::damage::Damage;

/// Appends `value`, seven bits a byte, low ones first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed value: sign in the lowest bit.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, unsigned_of(value));
}

/// A signed value with its sign in the lowest bit, so that small ones stay small.
pub(crate) fn unsigned_of(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The reverse of [`unsigned_of`].
pub(crate) fn signed_of(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a length and that many bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a decoded payload front to back.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes left: no count of things that take a byte or more can be larger.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn byte(&mut self, what: &str) -> Result<u8, Damage> {
        Ok(self.take(1, what)?[0])
    }

    pub(crate) fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], Damage> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(Damage::new(0, format!("{what} is cut off"))),
        }
    }

    /// The bytes up to the next zero, which is taken as well.
    pub(crate) fn until_zero(&mut self, what: &str) -> Result<&'a [u8], Damage> {
        let length = self.rest.iter().position(|byte| *byte == 0).unwrap_or(self.rest.len());
        let bytes = self.take(length, what)?;
        self.take(1, what)?;
        Ok(bytes)
    }

    pub(crate) fn varint(&mut self, what: &str) -> Result<u64, Damage> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damage::new(0, format!("{what} is no valid number")))
    }

    pub(crate) fn signed(&mut self, what: &str) -> Result<i64, Damage> {
        Ok(signed_of(self.varint(what)?))
    }

    /// A count of things that take at least one byte each.
    pub(crate) fn count(&mut self, what: &str) -> Result<usize, Damage> {
        let count = self.varint(what)?;
        match usize::try_from(count).ok().filter(|count| *count <= self.remaining()) {
            Some(count) => Ok(count),
            None => Err(Damage::new(0, format!("{what} of {count} is more than there is"))),
        }
    }

    pub(crate) fn bytes(&mut self, what: &str) -> Result<&'a [u8], Damage> {
        let length = self.count(what)?;
        self.take(length, what)
    }

    /// Nothing may follow.
    pub(crate) fn finish(&self, what: &str) -> Result<(), Damage> {
        match self.is_empty() {
            true => Ok(()),
            false => Err(Damage::new(0, format!("{what} has {} bytes too many", self.rest.len()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64, signed: i64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_signed(&mut out, signed);
            put_bytes(&mut out, &bytes);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.varint("a").unwrap(), value);
            prop_assert_eq!(cursor.signed("b").unwrap(), signed);
            prop_assert_eq!(cursor.bytes("c").unwrap(), &bytes[..]);
            prop_assert!(cursor.finish("d").is_ok());
        }
    }

    #[test]
    fn overlong_and_huge_numbers_are_refused() {
        assert!(Cursor::new(&[0xff; 10]).varint("x").is_err(), "more than 64 bits");
        assert!(Cursor::new(&[0x80; 11]).varint("x").is_err(), "never ends");
        let mut huge = Vec::new();
        put_varint(&mut huge, u64::MAX);
        assert!(Cursor::new(&huge).bytes("x").is_err(), "longer than what is there");
    }
}

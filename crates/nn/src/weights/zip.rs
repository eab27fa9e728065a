//! Zip archives as PyTorch writes them: a list of records at the end, the numbers stored as they are.
//!
//! Only what is needed of the format (<https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>): records are found
//! through the central directory, and those that hold numbers must be stored without compression, so that they can stay in
//! the mapped file.

use super::tensor::Source;
use std::borrow::Cow;
use std::collections::HashMap;

/// The most records; PyTorch writes one per tensor.
const MAX_RECORDS: usize = 1 << 20;

/// What is wrong, for whoever knows the file's name.
type Reason = String;

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// First byte in the file.
    pub begin: usize,
    /// Byte behind the last.
    pub end: usize,
    compressed: bool,
    /// Bytes without compression.
    size: usize,
}

/// The records of an archive by name.
pub struct Archive<'a> {
    source: &'a Source,
    records: HashMap<String, Record>,
}

/// Whether a file begins as a zip archive.
pub fn fits(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// Little-endian fields at fixed places, each there or an error.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn at(bytes: &'a [u8], begin: usize, len: usize) -> Result<Self, Reason> {
        let end = begin.checked_add(len);
        let fields = end.and_then(|end| bytes.get(begin..end));
        fields.map(Self).ok_or_else(|| {
            format!(
                "expected {len} bytes at {begin} of a file of {}; cut short?",
                bytes.len()
            )
        })
    }

    fn u16(&self, at: usize) -> usize {
        let bytes = self.0[at..][..2].try_into().expect("two bytes");
        u16::from_le_bytes(bytes).into()
    }

    fn u32(&self, at: usize) -> usize {
        let bytes = self.0[at..][..4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    }

    /// What does not fit the address space is beyond every file.
    fn u64(&self, at: usize) -> usize {
        let bytes = self.0[at..][..8].try_into().expect("eight bytes");
        usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    }
}

impl<'a> Archive<'a> {
    /// Reads the list of records.
    pub fn parse(source: &'a Source) -> Result<Self, Reason> {
        let bytes = source.bytes();
        let (count, directory) = directory(bytes)?;
        // copied, because a mapped file may change while it is read
        let directory = directory.to_vec();
        if count > MAX_RECORDS || count > directory.len() / 46 {
            return Err(format!(
                "expected at most {MAX_RECORDS} records in a list of {} bytes, found {count}",
                directory.len()
            ));
        }
        let mut records = HashMap::with_capacity(count);
        let mut at = 0;
        for _ in 0..count {
            let (name, record, len) = entry(bytes, &directory, at)?;
            at += len;
            if records.insert(name.clone(), record).is_some() {
                return Err(format!("expected record {name:?} once, found it twice"));
            }
        }
        let mut order: Vec<(&String, &Record)> = records.iter().collect();
        order.sort_by_key(|(_, record)| (record.begin, record.end));
        for pair in order.windows(2) {
            let [(a, first), (b, second)] = pair else {
                continue;
            };
            if first.end > second.begin {
                return Err(format!("expected records apart, found {a:?} overlap {b:?}"));
            }
        }
        Ok(Self { source, records })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(String::as_str)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.records.contains_key(name)
    }

    fn find(&self, name: &str) -> Result<Record, Reason> {
        let found = self.records.get(name).copied();
        found.ok_or_else(|| format!("expected a record {name:?}, found none"))
    }

    /// The place of a record that is stored as it is.
    pub fn stored(&self, name: &str) -> Result<(usize, usize), Reason> {
        let record = self.find(name)?;
        if record.compressed {
            return Err(format!(
                "expected {name:?} to be stored as it is, found it compressed; torch.save does not do that"
            ));
        }
        Ok((record.begin, record.end))
    }

    /// The contents of a record of at most `most` bytes.
    pub fn read(&self, name: &str, most: usize) -> Result<Cow<'a, [u8]>, Reason> {
        let record = self.find(name)?;
        if record.size > most {
            return Err(format!(
                "expected at most {most} bytes in {name:?}, found {}",
                record.size
            ));
        }
        let bytes = &self.source.bytes()[record.begin..record.end];
        if !record.compressed {
            return Ok(Cow::Borrowed(bytes));
        }
        let inflated = miniz_oxide::inflate::decompress_to_vec_with_limit(bytes, record.size);
        match inflated {
            Ok(inflated) if inflated.len() == record.size => Ok(Cow::Owned(inflated)),
            _ => Err(format!(
                "expected {} compressed bytes in {name:?}, found damaged ones",
                record.size
            )),
        }
    }
}

/// The number of records and their list, found from the end of the file.
fn directory(bytes: &[u8]) -> Result<(usize, &[u8]), Reason> {
    // the record that ends the file has 22 bytes and a comment of up to 65535
    let from = bytes.len().saturating_sub(22 + 0xffff);
    let end = bytes[from..].windows(4).rposition(|w| w == b"PK\x05\x06");
    let end = from + end.ok_or("expected the list of a zip archive at the end; cut short?")?;
    let fields = Fields::at(bytes, end, 22)?;
    let (mut count, mut size, mut begin) = (fields.u16(10), fields.u32(12), fields.u32(16));
    let locator = end.checked_sub(20).map(|at| Fields::at(bytes, at, 20));
    if let Some(Ok(locator)) = locator
        && locator.0.starts_with(b"PK\x06\x07")
    {
        let fields = Fields::at(bytes, locator.u64(8), 56)?;
        if !fields.0.starts_with(b"PK\x06\x06") {
            return Err("expected the end of a zip64 list, found something else".into());
        }
        (count, size, begin) = (fields.u64(32), fields.u64(40), fields.u64(48));
    }
    Ok((count, Fields::at(bytes, begin, size)?.0))
}

/// A record of the list at some place, and the length of its entry there.
fn entry(bytes: &[u8], directory: &[u8], at: usize) -> Result<(String, Record, usize), Reason> {
    let fields = Fields::at(directory, at, 46)?;
    if !fields.0.starts_with(b"PK\x01\x02") {
        return Err("expected an entry of a zip archive's list, found something else".into());
    }
    let (flags, method) = (fields.u16(8), fields.u16(10));
    let (mut packed, mut size) = (fields.u32(20), fields.u32(24));
    let (name_len, extra_len, comment_len) = (fields.u16(28), fields.u16(30), fields.u16(32));
    let mut header = fields.u32(42);
    let name = Fields::at(directory, at + 46, name_len)?.0;
    let name = std::str::from_utf8(name).map_err(|e| format!("expected names in UTF-8: {e}"))?;
    let extra = Fields::at(directory, at + 46 + name_len, extra_len)?.0;
    if flags & 1 != 0 {
        return Err(format!(
            "expected records that can be read, found {name:?} encrypted"
        ));
    }
    if method != 0 && method != 8 {
        return Err(format!(
            "expected {name:?} stored or deflated, found method {method}"
        ));
    }
    // what does not fit 32 bits stands in an extra field, in this order
    let mut rest = extra;
    while rest.len() >= 4 {
        let field = Fields(rest);
        let (id, len) = (field.u16(0), field.u16(2));
        let body = Fields::at(rest, 4, len)?.0;
        if id == 1 {
            let mut longs = body.as_chunks::<8>().0.iter();
            for place in [&mut size, &mut packed, &mut header] {
                if *place == u32::MAX as usize {
                    let long = longs
                        .next()
                        .ok_or("expected a zip64 field, found it too short")?;
                    *place = Fields(long).u64(0);
                }
            }
        }
        rest = &rest[4 + len..];
    }
    let local = Fields::at(bytes, header, 30)?;
    if !local.0.starts_with(b"PK\x03\x04") {
        return Err(format!(
            "expected the header of {name:?}, found something else"
        ));
    }
    let begin = header + 30 + local.u16(26) + local.u16(28);
    Fields::at(bytes, begin, packed)?;
    let compressed = method == 8;
    if !compressed && packed != size {
        return Err(format!("expected {size} bytes of {name:?}, found {packed}"));
    }
    let record = Record {
        begin,
        end: begin + packed,
        compressed,
        size,
    };
    let len = 46 + name_len + extra_len + comment_len;
    Ok((name.to_owned(), record, len))
}

//! A picture of where a volume changed, small enough for a terminal.
//!
//! ```text
//!        0 B  █▒░·····
//!      8 GiB  ····░···      one cell is 1 GiB: · nothing  ░ to 1 %  ▒ to 10 %  ▓ to 50 %  █ more
//! ```
//!
//! Owns: counting bytes by cell, and the picture. Must not: print, or know the terminal.

use std::fmt::Write;

use crate::extent::{ByteLen, Extent};

/// Shades and the share of a cell, in a thousand, up to which each stands. Changes are sparse, so the steps are not even.
const SHADES: [(char, u64); 4] = [('░', 10), ('▒', 100), ('▓', 500), ('█', 1000)];
const NOTHING: char = '·';

/// Bytes of a volume that belong to a set, counted by cells of equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeatMap {
    size: u64,
    cell: u64,
    bytes: Vec<u64>,
}

impl HeatMap {
    /// A map without bytes of a volume of `size` bytes, in at most `cells` cells.
    #[must_use]
    pub fn new(size: ByteLen, cells: usize) -> Self {
        let most = u64::try_from(cells).unwrap_or(u64::MAX).max(1);
        let cell = size.0.div_ceil(most).max(1);
        let used = usize::try_from(size.0.div_ceil(cell)).unwrap_or(cells);
        Self {
            size: size.0,
            cell,
            bytes: vec![0; used],
        }
    }

    /// Counts an extent, clipped to the volume; one that is added twice counts twice.
    pub fn add(&mut self, extent: Extent) {
        let end = extent.end().unwrap_or(u64::MAX).min(self.size);
        let mut at = extent.offset.0;
        while at < end {
            let number = at / self.cell;
            let stop = end.min((number + 1).saturating_mul(self.cell));
            let cell = usize::try_from(number).ok();
            if let Some(bytes) = cell.and_then(|cell| self.bytes.get_mut(cell)) {
                *bytes = bytes.saturating_add(stop - at);
            }
            at = stop;
        }
    }

    /// Bytes of a cell; the last one may be shorter.
    #[must_use]
    pub fn cell_len(&self) -> ByteLen {
        ByteLen(self.cell)
    }

    /// Bytes counted in each cell.
    #[must_use]
    pub fn cells(&self) -> &[u64] {
        &self.bytes
    }

    /// The picture in rows of `width` cells, each with the offset of its first one, and a legend; every line ends.
    #[must_use]
    pub fn render(&self, width: usize) -> String {
        let width = width.max(1);
        let shades: Vec<char> = (0..)
            .zip(&self.bytes)
            .map(|(n, b)| self.shade(n, *b))
            .collect();
        let mut picture = String::new();
        let mut offset = 0u64;
        for row in shades.chunks(width) {
            let row: String = row.iter().collect();
            // Writing to a string cannot fail.
            let _ = writeln!(picture, "{:>10}  {row}", binary(offset));
            offset = offset.saturating_add(self.cell.saturating_mul(width as u64));
        }
        let _ = writeln!(picture, "{:>10}  {}", "", self.legend());
        picture
    }

    fn legend(&self) -> String {
        let mut legend = format!("one cell is {}: {NOTHING} nothing", binary(self.cell));
        for (shade, most) in SHADES {
            let _ = match most {
                1000 => write!(legend, "  {shade} more"),
                most => write!(legend, "  {shade} to {} %", most / 10),
            };
        }
        legend
    }

    fn shade(&self, number: u64, bytes: u64) -> char {
        if bytes == 0 {
            return NOTHING;
        }
        let start = number.saturating_mul(self.cell);
        let len = self.cell.min(self.size.saturating_sub(start)).max(1);
        let share = u128::from(bytes) * 1000;
        let fits = |most: u64| share <= u128::from(most) * u128::from(len);
        let shade = SHADES.iter().find(|(_, most)| fits(*most));
        shade.map_or('█', |(shade, _)| *shade)
    }
}

impl Extend<Extent> for HeatMap {
    fn extend<I: IntoIterator<Item = Extent>>(&mut self, extents: I) {
        for extent in extents {
            self.add(extent);
        }
    }
}

/// A number of bytes in the largest unit that leaves at least one before the point.
fn binary(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (bytes.max(1).ilog2() / 10) as usize;
    let unit = 1u64 << (10 * power);
    let tenths = u128::from(bytes % unit) * 10 / u128::from(unit);
    match tenths {
        0 => format!("{} {}", bytes / unit, UNITS[power]),
        _ => format!("{}.{tenths} {}", bytes / unit, UNITS[power]),
    }
}

#[cfg(test)]
mod tests;

//! The XML that the thin-provisioning tools write: elements with attributes, and nothing else.
//!
//! Owns: a strict pull reader in bounded memory. Must not: know what an element means. Text, comments, entities, declarations
//! and everything else that the tools do not write are faults: an answer that looks different is not understood.

use std::io::{BufRead, Read};

use crate::source::SourceError;

/// Longest element taken: the tools' longest has nine numbers.
const MAX_TAG_BYTES: u64 = 1024;

/// What an element does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `<name …>`
    Open,
    /// `<name …/>`
    Empty,
    /// `</name>`
    Close,
}

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag<'a> {
    pub(super) form: Form,
    pub(super) name: &'a str,
    attributes: &'a str,
}

impl<'a> Tag<'a> {
    /// The values of the attributes `names`. Each may stand there once; any other attribute is a fault.
    pub(super) fn values<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[Option<&'a str>; N], SourceError> {
        let mut values = [None; N];
        let mut rest = self.attributes.trim_start();
        while !rest.is_empty() {
            let (name, after) = rest.split_once("=\"").ok_or_else(|| self.fault())?;
            let (value, after) = after.split_once('"').ok_or_else(|| self.fault())?;
            let index = names.iter().position(|known| *known == name);
            let slot = index.and_then(|index| values.get_mut(index));
            match slot {
                Some(slot @ None) => *slot = Some(value),
                _ => return Err(self.fault()),
            }
            rest = after.trim_start();
            // Two attributes are separated.
            if !rest.is_empty() && rest.len() == after.len() {
                return Err(self.fault());
            }
        }
        Ok(values)
    }

    /// The numbers in the attributes `names`: all there, and no other.
    pub(super) fn numbers<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[u64; N], SourceError> {
        let mut numbers = [0; N];
        for (number, value) in numbers.iter_mut().zip(self.values(names)?) {
            *number = self.number(value)?;
        }
        Ok(numbers)
    }

    /// A value that must be there and be a number.
    pub(super) fn number(&self, value: Option<&str>) -> Result<u64, SourceError> {
        value.and_then(decimal).ok_or_else(|| {
            fault(&format!(
                "<{}> without a number where one belongs",
                self.name
            ))
        })
    }

    /// A fault at this element.
    pub(super) fn fault(&self) -> SourceError {
        fault(&format!(
            "<{}{}> is not expected there",
            self.name, self.attributes
        ))
    }
}

/// A number as the tools write it: digits only.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// An answer that is not understood.
pub(super) fn fault(what: &str) -> SourceError {
    SourceError::full(format!("understand the thin-provisioning tools: {what}"))
}

/// Reads one element after the other.
#[derive(Debug)]
pub(super) struct Tags<R> {
    input: R,
    buffer: Vec<u8>,
}

impl<R: BufRead> Tags<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
        }
    }

    /// The next element; a fault at the end of the input.
    pub(super) fn next(&mut self) -> Result<Tag<'_>, SourceError> {
        if self.skip_space()? {
            return Err(fault("the answer ends in the middle"));
        }
        self.buffer.clear();
        let mut limited = (&mut self.input).take(MAX_TAG_BYTES);
        let read = limited.read_until(b'>', &mut self.buffer);
        read.map_err(|error| fault("read the answer").because(error))?;
        parse(&self.buffer)
    }

    /// Checks that nothing follows.
    pub(super) fn end(&mut self) -> Result<(), SourceError> {
        if self.skip_space()? {
            return Ok(());
        }
        Err(fault("the answer goes on after its end"))
    }

    /// Skips white space; whether the input ends there.
    fn skip_space(&mut self) -> Result<bool, SourceError> {
        loop {
            let bytes = self.input.fill_buf();
            let bytes = bytes.map_err(|error| fault("read the answer").because(error))?;
            if bytes.is_empty() {
                return Ok(true);
            }
            let space = bytes.iter().take_while(|byte| byte.is_ascii_whitespace());
            let (space, all) = (space.count(), bytes.len());
            self.input.consume(space);
            if space < all {
                return Ok(false);
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Tag<'_>, SourceError> {
    let broken = || {
        fault(&format!(
            "broken element {:?}",
            String::from_utf8_lossy(bytes)
        ))
    };
    let text = std::str::from_utf8(bytes).map_err(|_| broken())?;
    let inner = text
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    let inner = inner.ok_or_else(broken)?;
    let (form, inner) = match (inner.strip_prefix('/'), inner.strip_suffix('/')) {
        (None, None) => (Form::Open, inner),
        (None, Some(inner)) => (Form::Empty, inner),
        (Some(inner), None) => (Form::Close, inner),
        (Some(_), Some(_)) => return Err(broken()),
    };
    let end = inner.find(|letter: char| !(letter.is_ascii_lowercase() || letter == '_'));
    let (name, attributes) = inner.split_at(end.unwrap_or(inner.len()));
    let separated = attributes.is_empty() || attributes.starts_with(char::is_whitespace);
    let closed = form == Form::Close && !attributes.trim().is_empty();
    if name.is_empty() || !separated || closed || attributes.contains(['<', '&']) {
        return Err(broken());
    }
    Ok(Tag {
        form,
        name,
        attributes,
    })
}

#[cfg(test)]
mod tests;

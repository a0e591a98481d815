//! Which decoded chunks go to the target in one write.
//!
//! Owns: cutting a set of chunks into contiguous runs. Must not: do I/O.

/// Sorts `items` by chunk and cuts them into runs of consecutive chunks, each at most `max_chunks` long. A chunk that
/// appears twice starts a new run: writing the same bytes twice is harmless.
pub(crate) fn split<T>(
    mut items: Vec<T>,
    max_chunks: usize,
    chunk: impl Fn(&T) -> u64,
) -> Vec<Vec<T>> {
    items.sort_by_key(&chunk);
    let mut runs: Vec<Vec<T>> = Vec::new();
    let mut next = None;
    for item in items {
        let number = chunk(&item);
        match runs.last_mut() {
            Some(run) if next == Some(number) && run.len() < max_chunks => run.push(item),
            _ => runs.push(vec![item]),
        }
        next = number.checked_add(1);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cuts_at_gaps_and_at_the_longest_write() {
        let runs = split(vec![5u64, 1, 2, 3, 9, 4], 3, |chunk| *chunk);
        assert_eq!(runs, [vec![1, 2, 3], vec![4, 5], vec![9]]);
        assert!(split(Vec::<u64>::new(), 3, |chunk| *chunk).is_empty());
    }

    proptest! {
        #[test]
        fn runs_are_contiguous_short_and_complete(mut chunks in proptest::collection::vec(0u64..100, 0..80)) {
            let runs = split(chunks.clone(), 8, |chunk| *chunk);
            for run in &runs {
                prop_assert!(!run.is_empty() && run.len() <= 8);
                prop_assert!(run.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            }
            let mut listed: Vec<u64> = runs.concat();
            listed.sort_unstable();
            chunks.sort_unstable();
            prop_assert_eq!(listed, chunks);
        }
    }
}

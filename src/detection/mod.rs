//! What a detector does between its networks.
//!
//! | module | its question |
//! |---|---|
//! | [`images`] | which batch do images of several sizes make |
//! | [`proposals`] | which regions does an RPN over several feature maps propose |
//! | [`results`] | which objects do the scores and offsets of a head stand for |
//!
//! All take a batch of images and work on its images in parallel; levels, classes and blocks of
//! regions are tasks of their own, so that one image occupies all threads, too.

pub mod images;
pub mod proposals;
pub mod results;

use crate::{Result, parallel};

/// Calls `run` with the number and the place of every result, on several threads if that is worth it.
fn spread<T: Send>(
    results: &mut [T],
    worthwhile: bool,
    run: impl Fn(usize, &mut T) + Sync,
) -> Result<()> {
    if worthwhile {
        return parallel::lead(|| {
            parallel::for_each_chunk(results, 1, |task, chunk| run(task, &mut chunk[0]));
        });
    }
    crate::isa::check_cap()?;
    parallel::ieee(|| results.iter_mut().enumerate().for_each(|(task, result)| run(task, result)));
    Ok(())
}

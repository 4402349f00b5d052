//! Pages of a Parquet column, inflated. The crate does Snappy itself; gzip and Zstandard, for which it would bring a second inflater
//! and a C library, are done here by the decoders that images have. <https://parquet.apache.org/docs/file-format/data-pages/>

use std::io::{Cursor, Read};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use super::bytes::Bytes;

/// How a column's pages are compressed, where that is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Codec {
    /// Not at all, or by Snappy.
    Crate,
    Gzip,
    Zstandard,
}

impl Codec {
    /// `None` for those that are not read.
    pub fn of(compression: Compression) -> Option<Codec> {
        match compression {
            Compression::UNCOMPRESSED | Compression::SNAPPY => Some(Codec::Crate),
            Compression::GZIP(_) => Some(Codec::Gzip),
            Compression::ZSTD(_) => Some(Codec::Zstandard),
            _ => None,
        }
    }
}

/// A reader of a column of a row group, whose [`Codec`] there is.
///
/// # Errors
/// Metadata of no column that could be.
pub fn reader(file: &Bytes, group: &RowGroupMetaData, column: usize) -> Result<ColumnReader> {
    let about = group.column(column);
    let rows = usize::try_from(group.num_rows())?;
    let file = Arc::new(file.clone());
    let codec = Codec::of(about.compression())
        .ok_or_else(|| ParquetError::NYI(format!("compression by {}", about.compression())))?;
    let pages: Box<dyn PageReader> = match codec {
        Codec::Crate => Box::new(SerializedPageReader::new(file, about, rows, None)?),
        codec => {
            // As pages that are not compressed they come as they are.
            let plain = about.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
            let most = u64::try_from(about.uncompressed_size())?;
            Box::new(Inflated { pages: SerializedPageReader::new(file, &plain, rows, None)?, codec, most })
        }
    };
    Ok(get_column_reader(about.column_descr_ptr(), pages))
}

/// Pages that are inflated as they come.
struct Inflated {
    pages: SerializedPageReader<Bytes>,
    codec: Codec,
    /// No page has more bytes: what the whole column says to have.
    most: u64,
}

impl Inflated {
    fn inflated(&self, mut page: Page) -> Result<Page> {
        // A second version's page has levels in front, which are never compressed.
        let (buffer, plain) = match &mut page {
            Page::DataPageV2 { is_compressed: false, .. } => return Ok(page),
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, is_compressed, .. } => {
                *is_compressed = false;
                (buf, (*def_levels_byte_len + *rep_levels_byte_len) as usize)
            }
            Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => (buf, 0),
        };
        let damaged = |why: String| ParquetError::General(format!("a page of it is damaged: {why}"));
        let levels = buffer.get(..plain).ok_or_else(|| damaged("it ends in its levels".to_string()))?;
        let (mut bytes, stored) = (levels.to_vec(), Cursor::new(&buffer[plain..]));
        let most = self.most;
        let read = match self.codec {
            // No values, no stream.
            _ if plain == buffer.len() => Ok(0),
            Codec::Crate => unreachable!("the crate inflates these"),
            Codec::Gzip => MultiGzDecoder::new(stored).take(most + 1).read_to_end(&mut bytes),
            Codec::Zstandard => ruzstd::decoding::StreamingDecoder::new(stored)
                .map_err(|error| damaged(error.to_string()))?
                .take(most + 1)
                .read_to_end(&mut bytes),
        };
        read.map_err(|error| damaged(error.to_string()))?;
        if bytes.len() as u64 > most {
            return Err(damaged(format!("it has more bytes than its column, {most}")));
        }
        *buffer = bytes.into();
        Ok(page)
    }
}

impl Iterator for Inflated {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Inflated {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.pages.get_next_page()?.map(|page| self.inflated(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.pages.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>> {
        self.pages.take_deferred_dictionary()?.map(|page| self.inflated(page)).transpose()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

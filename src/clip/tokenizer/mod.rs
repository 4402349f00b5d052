//! CLIP's byte-pair encoding, by the crate `instant-clip-tokenizer`, which has OpenAI's vocabulary inside, of text
//! that is cleaned as the library of a checkpoint's naming does.

mod files;
mod html;
mod openai;

use std::path::Path;

use anyhow::{Result, bail, ensure};
use unicode_normalization::UnicodeNormalization;

use super::names::Naming;

/// Starts every prompt.
pub const START_OF_TEXT: u32 = 49406;
/// Ends every prompt; the text's features are taken at the first one.
pub const END_OF_TEXT: u32 = 49407;

pub struct Tokenizer {
    words: instant_clip_tokenizer::Tokenizer,
    naming: Naming,
    /// Tokens that the checkpoint's own tokenizer has beside CLIP's.
    added: Vec<String>,
}

impl Tokenizer {
    /// CLIP's, with text cleaned as by
    ///
    /// * Hugging Face's `CLIPTokenizer`: composed (Unicode NFC), white space collapsed, each character lower-cased;
    /// * OpenAI's and open_clip's: mended by ftfy, HTML unescaped twice, white space collapsed, lower-cased.
    pub fn new(naming: Naming) -> Tokenizer {
        Tokenizer { words: instant_clip_tokenizer::Tokenizer::new(), naming, added: Vec::new() }
    }

    /// The tokenizer for the checkpoint of these weights.
    ///
    /// # Errors
    /// As [`Tokenizer::check`].
    pub fn open(naming: Naming, weights: &Path) -> Result<Tokenizer> {
        let added = Tokenizer::check(naming, weights)?;
        Ok(Tokenizer { added, ..Tokenizer::new(naming) })
    }

    /// Reads the tokenizer's files beside weights in Hugging Face's naming, which must be CLIP's: the tokens that they
    /// have beside CLIP's.
    ///
    /// # Errors
    /// Files that ask for another tokenizer, with the file and the field.
    pub fn check(naming: Naming, weights: &Path) -> Result<Vec<String>> {
        match naming {
            Naming::HuggingFace => files::check(weights),
            Naming::OpenAi => Ok(Vec::new()),
        }
    }

    /// Ids from start of text to end of text.
    ///
    /// # Errors
    /// A text that this tokenizer's library would change in ways that are not done here; a token that was added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = vec![START_OF_TEXT];
        match self.naming {
            Naming::OpenAi => {
                let text = openai::clean(text)?;
                // Python's regex is told to ignore case, and splits these as `'s` and as a Greek letter.
                for odd in ["'ſ", "\u{345}"] {
                    ensure!(
                        !text.contains(odd),
                        "it holds {odd:?}, which OpenAI's tokenizer takes apart in an odd way"
                    );
                }
                for special in ["<|startoftext|>", "<|endoftext|>", "<start_of_text>", "<end_of_text>"] {
                    ensure!(
                        !text.contains(special),
                        "it holds {special}, which CLIP's tokenizers take for a token"
                    );
                }
                self.encode_words(&text, &mut tokens);
            }
            Naming::HuggingFace => {
                if let Some(added) = self.added.iter().find(|added| lower(text).contains(&lower(added))) {
                    bail!(
                        "it holds {added:?}, a token of this model's tokenizer beside CLIP's, which is not known here"
                    );
                }
                let mut rest = text;
                while let Some((before, id, after)) = first_special(rest) {
                    ensure!(!is_odd(before), "{ODD}");
                    self.encode_plain(before, &mut tokens);
                    tokens.push(id);
                    rest = after;
                }
                ensure!(!is_odd(rest), "{ODD}");
                self.encode_plain(rest, &mut tokens);
            }
        }
        tokens.push(END_OF_TEXT);
        Ok(tokens)
    }

    /// Ids of a text that has room for so many, start and end included; one that is longer is refused, or cut with its
    /// end kept, as OpenAI's `tokenize` does by `truncate=True`.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; a text that is too long, where it is not to be cut.
    pub fn encode_within(&self, text: &str, most: usize, truncate: bool) -> Result<Vec<u32>> {
        let mut tokens = self.encode(text)?;
        let count = tokens.len();
        if truncate && count > most {
            tokens.truncate(most - 1);
            tokens.push(END_OF_TEXT);
        }
        ensure!(
            tokens.len() <= most,
            "its prompt has {count} tokens, start and end included, and the model takes {most}; shorten it, or \
             --truncate cuts what is behind"
        );
        Ok(tokens)
    }

    /// Hugging Face's ids of what lies between special tokens.
    fn encode_plain(&self, text: &str, tokens: &mut Vec<u32>) {
        let text = lower(text);
        let mut rest = text.as_str();
        // The crate takes these words for its start and end; a symbol and a letter are never one token.
        while let Some(at) =
            ["<start_of_text>", "<end_of_text>"].iter().filter_map(|word| rest.find(word)).min()
        {
            let (before, after) = rest.split_at(at + 1);
            self.encode_words(before, tokens);
            rest = after;
        }
        self.encode_words(rest, tokens);
    }

    fn encode_words(&self, text: &str, tokens: &mut Vec<u32>) {
        let mut ids = Vec::new();
        self.words.encode(text, &mut ids);
        tokens.extend(ids.into_iter().map(|id| u32::from(id.to_u16())));
    }
}

const ODD: &str = "it holds <|startoftext|> or <|endoftext|> in capitals before a sign, which transformers takes apart in an odd way";

/// Whether a text without special tokens has one once its capitals are gone, with a sign behind it: transformers' pattern ends a
/// word between the two, CLIP's does not.
fn is_odd(text: &str) -> bool {
    let mut rest = lower(text);
    while let Some((_, _, after)) = first_special(&rest) {
        if after.starts_with(|c: char| !c.is_alphanumeric() && !c.is_whitespace()) {
            return true;
        }
        rest = after.to_string();
    }
    false
}

/// The first of the two special tokens that is written out in a text, and what is around it.
fn first_special(text: &str) -> Option<(&str, u32, &str)> {
    let specials = [("<|startoftext|>", START_OF_TEXT), ("<|endoftext|>", END_OF_TEXT)];
    let found = specials.iter().filter_map(|(name, id)| Some((text.find(name)?, name.len(), *id)));
    let (at, len, id) = found.min()?;
    Some((&text[..at], id, &text[at + len..]))
}

/// Composed, each character lower-cased by itself (no final sigma), and white space collapsed.
fn lower(text: &str) -> String {
    let lower: String = text.nfc().flat_map(char::to_lowercase).collect();
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_in_capitals_before_a_sign_are_refused() {
        let tokenizer = Tokenizer::new(Naming::HuggingFace);
        for text in ["<|ENDOFTEXT|>!", "a <|EndOfText|>'s b <|endoftext|>", "<|endoftext|> <|STARTOFTEXT|>."]
        {
            assert!(tokenizer.encode(text).unwrap_err().to_string().contains("in capitals"), "{text}");
        }
        assert!(tokenizer.encode("<|ENDOFTEXT|> !").is_ok());
        assert_eq!(tokenizer.encode("A<|endoftext|>B").unwrap().len(), 5);
    }

    #[test]
    fn a_long_text_is_refused_or_cut_with_its_end_kept() {
        for naming in [Naming::HuggingFace, Naming::OpenAi] {
            let (tokenizer, text) = (Tokenizer::new(naming), "cat ".repeat(200));
            let error = tokenizer.encode_within(&text, 77, false).unwrap_err().to_string();
            assert!(error.contains("202 tokens") && error.contains("77"), "{error}");
            let ids = tokenizer.encode_within(&text, 77, true).unwrap();
            assert_eq!((ids.len(), ids[75], ids[76]), (77, 2368, 49407));
            for (words, most) in [(75, 77), (246, 248)] {
                let fits = "cat ".repeat(words);
                assert_eq!(
                    tokenizer.encode_within(&fits, most, false).unwrap(),
                    tokenizer.encode(&fits).unwrap()
                );
            }
        }
    }
}

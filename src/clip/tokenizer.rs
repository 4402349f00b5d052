//! CLIP's byte-pair encoding, by the crate `instant-clip-tokenizer`, which has OpenAI's vocabulary inside.
//!
//! Text is cleaned as Hugging Face's `CLIPTokenizerFast` does: composed (Unicode NFC), white space collapsed,
//! lower-cased. OpenAI's own tokenizer also decodes HTML entities and straightens curly quotes and
//! ligatures; for text without them the ids are the same.

use unicode_normalization::UnicodeNormalization;

/// Longest prompt, start and end included.
pub const CONTEXT_LENGTH: usize = 77;
/// Starts every prompt.
pub const START_OF_TEXT: u32 = 49406;
/// Ends every prompt; the text's features are taken at the first one.
pub const END_OF_TEXT: u32 = 49407;

pub struct Tokenizer(instant_clip_tokenizer::Tokenizer);

impl Tokenizer {
    pub fn new() -> Tokenizer {
        Tokenizer(instant_clip_tokenizer::Tokenizer::new())
    }

    /// Ids from start of text to end of text, cut to 77 with the end kept.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = vec![START_OF_TEXT];
        let mut rest = text;
        while let Some((before, id, after)) = first_special(rest) {
            self.encode_plain(before, &mut tokens);
            tokens.push(id);
            rest = after;
        }
        self.encode_plain(rest, &mut tokens);
        tokens.truncate(CONTEXT_LENGTH - 1);
        tokens.push(END_OF_TEXT);
        tokens
    }

    fn encode_plain(&self, text: &str, tokens: &mut Vec<u32>) {
        let text = clean(text);
        let (mut rest, mut ids) = (text.as_str(), Vec::new());
        // The crate takes these words for its start and end; a symbol and a letter are never one token.
        while let Some(at) =
            ["<start_of_text>", "<end_of_text>"].iter().filter_map(|word| rest.find(word)).min()
        {
            let (before, after) = rest.split_at(at + 1);
            self.0.encode(before, &mut ids);
            rest = after;
        }
        self.0.encode(rest, &mut ids);
        tokens.extend(ids.into_iter().map(|id| u32::from(id.to_u16())));
    }
}

/// The first of the two special tokens that is written out in a text, and what is around it.
fn first_special(text: &str) -> Option<(&str, u32, &str)> {
    let specials = [("<|startoftext|>", START_OF_TEXT), ("<|endoftext|>", END_OF_TEXT)];
    let found = specials.iter().filter_map(|(name, id)| Some((text.find(name)?, name.len(), *id)));
    let (at, len, id) = found.min()?;
    Some((&text[..at], id, &text[at + len..]))
}

impl Default for Tokenizer {
    fn default() -> Self {
        Tokenizer::new()
    }
}

/// Composed, each character lower-cased by itself (no final sigma), and white space collapsed.
fn clean(text: &str) -> String {
    let lower: String = text.nfc().flat_map(char::to_lowercase).collect();
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_keeps_its_end() {
        let ids = Tokenizer::new().encode(&"cat ".repeat(200));
        assert_eq!((ids.len(), ids[75], ids[76]), (77, 2368, 49407));
    }
}

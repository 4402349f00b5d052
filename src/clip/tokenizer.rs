//! CLIP's byte-pair encoding, by the crate `instant-clip-tokenizer`, which has OpenAI's vocabulary inside.
//!
//! Text is cleaned as Hugging Face's `CLIPTokenizerFast` does: composed (Unicode NFC), white space collapsed,
//! lower-cased. OpenAI's own tokenizer also decodes HTML entities and straightens curly quotes and
//! ligatures; for text without them the ids are the same.

use unicode_normalization::UnicodeNormalization;

/// Longest prompt, start and end included.
pub const CONTEXT_LENGTH: usize = 77;

pub struct Tokenizer(instant_clip_tokenizer::Tokenizer);

impl Tokenizer {
    pub fn new() -> Tokenizer {
        Tokenizer(instant_clip_tokenizer::Tokenizer::new())
    }

    /// Ids from start of text (49406) to end of text (49407), cut to 77 with the end kept.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = vec![self.0.start_of_text()];
        self.0.encode(&clean(text), &mut tokens);
        tokens.truncate(CONTEXT_LENGTH - 1);
        tokens.push(self.0.end_of_text());
        tokens.into_iter().map(|token| u32::from(token.to_u16())).collect()
    }
}

impl Default for Tokenizer {
    fn default() -> Self {
        Tokenizer::new()
    }
}

/// Composed, and white space collapsed; the crate lower-cases.
fn clean(text: &str) -> String {
    let composed: String = text.nfc().collect();
    composed.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids by OpenAI's `simple_tokenizer` (regular expression, merges) over the same vocabulary.
    const KNOWN: [(&str, &[u32]); 17] = [
        ("a photo of a aquarium_fish", &[320, 1125, 539, 320, 16814, 318, 2759]),
        ("", &[]),
        ("  A  PHOTO\tof a\ncat ", &[320, 1125, 539, 320, 2368]),
        (
            "it's what they'll do, isn't it? we've I'm you'd they're",
            &[
                585, 568, 768, 889, 1342, 818, 267, 2923, 713, 585, 286, 649, 1200, 328, 880, 592, 1896, 889,
                982,
            ],
        ),
        ("DON'T SHOUT'S", &[847, 713, 5214, 568]),
        ("1234 5.6% 10th", &[272, 273, 274, 275, 276, 269, 277, 260, 272, 271, 640]),
        (
            "naïve café über straße ÆØÅ",
            &[1097, 35689, 563, 15304, 6522, 1516, 1894, 127, 253, 324, 42495, 17483, 127, 354],
        ),
        ("日本語のテキスト", &[39121, 44353, 34002, 252, 21575, 2429, 228, 47121, 32421, 486]),
        ("привет мир", &[26302, 16370, 29503, 110, 22176, 141, 480, 38018, 16701, 141, 478]),
        ("emoji 🐱🐶 👩\u{200d}👩\u{200d}👧", &[16327, 35710, 10631, 26304, 26304, 964, 356]),
        ("a_b__c-d--e", &[320, 318, 321, 3838, 322, 268, 323, 2432, 324]),
        ("x\u{a0}y\u{2003}z", &[343, 344, 345]),
        ("½ ² Ⅷ ٣", &[33613, 41175, 158, 227, 371, 149, 352]),
        ("e\u{301} combining", &[4166, 23561]),
        (
            "C++ & C# @home #tag $5 100€",
            &[322, 19056, 261, 322, 258, 287, 1137, 258, 3640, 259, 276, 272, 271, 271, 6309],
        ),
        ("maple_tree sweet_pepper pickup_truck", &[10570, 318, 2677, 2418, 318, 8253, 15382, 318, 4629]),
        (
            "the quick brown fox jumps over the lazy dog supercalifragilisticexpialidocious",
            &[
                518, 3712, 2866, 3240, 18911, 962, 518, 10753, 1929, 1642, 2857, 13093, 2076, 5868, 26850,
                835, 639, 38466,
            ],
        ),
    ];

    #[test]
    fn known_ids() {
        let tokenizer = Tokenizer::new();
        for (text, ids) in KNOWN {
            let want: Vec<u32> = [&[49406], ids, &[49407]].concat();
            assert_eq!(tokenizer.encode(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_and_keeps_its_end() {
        let ids = Tokenizer::new().encode(&"cat ".repeat(200));
        assert_eq!((ids.len(), ids[75], ids[76]), (77, 2368, 49407));
    }
}

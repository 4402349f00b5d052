// One JPEG from memory, by libjpeg as Pillow calls it: its defaults (accurate integer DCT, smooth upsampling), and no
// end of file made up where the bytes end.

#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

// Of idct.c.
void memo_faster_dct(j_decompress_ptr info);

// As in jpeg.rs.
enum { DONE, BROKEN, CUT };

enum colour { GUESSED, YCBCR, STORED };

struct header {
    unsigned width, height, components, channels;
};

struct decoder {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    jmp_buf failed;
};

static void fail(j_common_ptr info) {
    longjmp(((struct decoder *)info)->failed, 1); // info is its first member
}

static void stay_silent(j_common_ptr info) {
    (void)info;
}

static void do_nothing(j_decompress_ptr info) {
    (void)info;
}

// There is no more: libjpeg stops where it is.
static boolean have_no_more(j_decompress_ptr info) {
    (void)info;
    return FALSE;
}

static void skip(j_decompress_ptr info, long bytes) {
    struct jpeg_source_mgr *source = info->src;
    size_t skipped = bytes <= 0 ? 0 : (size_t)bytes;
    if (skipped > source->bytes_in_buffer)
        skipped = source->bytes_in_buffer;
    source->next_input_byte += skipped;
    source->bytes_in_buffer -= skipped;
}

// Fills `header`; where `pixels` is not NULL it must be what an earlier call filled, and `pixels` gets its rows one
// after the other, `channels` bytes a pixel: RGB of an image of one or three components, CMYK of one of four, or with
// STORED the components. On BROKEN `message`, of JMSG_LENGTH_MAX bytes, says why.
int memo_jpeg(const unsigned char *bytes, size_t length, enum colour colour, struct header *header,
              unsigned char *pixels, char *message) {
    struct decoder decoder;
    struct jpeg_decompress_struct *info = &decoder.info;
    memset(&decoder, 0, sizeof decoder);
    info->err = jpeg_std_error(&decoder.errors);
    decoder.errors.error_exit = fail;
    decoder.errors.output_message = stay_silent;
    if (setjmp(decoder.failed)) {
        decoder.errors.format_message((j_common_ptr)info, message);
        jpeg_destroy_decompress(info);
        return BROKEN;
    }
    jpeg_create_decompress(info);
    decoder.source.init_source = do_nothing;
    decoder.source.fill_input_buffer = have_no_more;
    decoder.source.skip_input_data = skip;
    decoder.source.resync_to_restart = jpeg_resync_to_restart;
    decoder.source.term_source = do_nothing;
    decoder.source.next_input_byte = bytes;
    decoder.source.bytes_in_buffer = length;
    info->src = &decoder.source;

    int found;
    do
        found = jpeg_read_header(info, FALSE);
    while (found == JPEG_HEADER_TABLES_ONLY);
    if (found == JPEG_SUSPENDED)
        goto cut;
    if (pixels == NULL) {
        header->width = info->image_width;
        header->height = info->image_height;
        header->components = info->num_components;
        header->channels = colour == STORED || info->num_components == 4 ? info->num_components : 3;
        jpeg_destroy_decompress(info);
        return DONE;
    }
    info->out_color_space = info->num_components == 4 ? JCS_CMYK : JCS_RGB;
    if (colour == YCBCR)
        info->jpeg_color_space = JCS_YCbCr;
    if (colour == STORED)
        info->jpeg_color_space = info->out_color_space = JCS_UNKNOWN;
    if (!jpeg_start_decompress(info))
        goto cut;
    memo_faster_dct(info);
    if (info->output_width != header->width || info->output_height != header->height
        || (unsigned)info->output_components != header->channels)
        ERREXIT(info, JERR_IMAGE_TOO_BIG);
    while (info->output_scanline < info->output_height) {
        JSAMPROW row = pixels + (size_t)info->output_scanline * info->output_width * info->output_components;
        if (jpeg_read_scanlines(info, &row, 1) != 1)
            goto cut;
    }
    // All rows are there: what else the file should have had is not missed.
    jpeg_finish_decompress(info);
    jpeg_destroy_decompress(info);
    return DONE;

cut:
    jpeg_destroy_decompress(info);
    return CUT;
}

/* What an exported model says of pictures, in C: ./predict MODEL export.json PICTURE.ppm...
 *
 * MODEL is what `headstart export --to openvino`, onnx or litert wrote: OpenVINO reads all three. A picture is a binary
 * PPM (P6, 8 bits) of the size that the model takes; of an export with --any-size, of any. See README.md.
 */
#include <openvino/c/openvino.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *got, const char *what) {
    if (!got) fprintf(stderr, "%s\n", what), exit(1);
    return got;
}
#define TRY(call) do { ov_status_e s = (call); \
    if (s != OK) { fprintf(stderr, "%s\n%s\n", #call, ov_get_last_err_msg()); exit(1); } } while (0)

static char *text_of(const char *path) {  /* the whole of a file, with a zero at its end */
    FILE *file = must(fopen(path, "rb"), path);
    char *text = must(calloc(1, 1 << 24), "memory");
    must(fread(text, 1, (1 << 24) - 1, file) ? text : NULL, path), fclose(file);
    return text;
}

static char *end_of(char *word) {  /* the quotation mark that ends a word of JSON */
    while (*word && *word != '"') word += *word == '\\' && word[1] ? 2 : 1;
    return word;
}

int main(int n, char **given) {
    if (n < 4) return fprintf(stderr, "usage: predict MODEL export.json PICTURE.ppm...\n"), 2;
    char *json = text_of(given[2]), *names = must(strstr(json, "\"names\": ["), "export.json names no classes");
    if (strstr(json, "\"weights\": [") || strstr(json, "\"costs\": ["))
        return fprintf(stderr, "this model weighs its answers (--aim, --cost), which predict.py does\n"), 1;
    ov_core_t *core; ov_compiled_model_t *model; ov_infer_request_t *request; ov_tensor_t *in, *out; ov_shape_t shape;
    TRY(ov_core_create(&core));
    TRY(ov_core_compile_model_from_file(core, given[1], "CPU", 2, &model, "INFERENCE_PRECISION_HINT", "f32"));
    TRY(ov_compiled_model_create_infer_request(model, &request));
    for (int picture = 3; picture < n; picture++) {
        FILE *file = must(fopen(given[picture], "rb"), given[picture]);
        int width, height;
        if (fscanf(file, "P6 %d %d 255", &width, &height) != 2 || fgetc(file) == EOF || width < 1 || height < 1)
            return fprintf(stderr, "%s is no binary PPM of 8 bits\n", given[picture]), 1;
        size_t bytes = (size_t)width * height * 3;
        unsigned char *pixels = must(malloc(bytes), "memory");
        must(fread(pixels, 1, bytes, file) == bytes ? pixels : NULL, "the picture is cut short"), fclose(file);
        TRY(ov_shape_create(4, (int64_t[]){1, height, width, 3}, &shape));
        TRY(ov_tensor_create_from_host_ptr(U8, shape, pixels, &in));
        TRY(ov_infer_request_set_input_tensor(request, in));
        TRY(ov_infer_request_infer(request));
        TRY(ov_infer_request_get_output_tensor(request, &out));
        float *p; size_t classes, best = 0;
        TRY(ov_tensor_data(out, (void **)&p));
        TRY(ov_tensor_get_size(out, &classes));
        for (size_t k = 1; k < classes; k++) if (p[k] > p[best]) best = k;
        char *name = strchr(names + strlen("\"names\":"), '"') + 1;
        for (size_t k = 0; k < best; k++) name = strchr(end_of(name) + 1, '"') + 1;
        printf("%s\t%.*s\t%.6f\n", given[picture], (int)(end_of(name) - name), name, p[best]);
        ov_tensor_free(out), ov_tensor_free(in), ov_shape_free(&shape), free(pixels);
    }
    return 0;
}

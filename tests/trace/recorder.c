/* A profiler's library for the tests. It takes every slot that it is offered, and writes what it is told, a line each, to
   the file that RECORDER_OUT names. RECORDER_DOES=refuse: takes them and then declines; =nothing: takes none. */

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*Function)(void);

struct Callbacks {
    size_t size;
    int (*slots_of)(int module, Function ***slots, unsigned *count);
};

struct VersionInfo {
    size_t size;
    uint32_t version, reserved;
    void (*tell_version)(uint32_t version);
};

struct Event {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, reserved;
    uint64_t payload;
    int32_t message_type;
    const char *message;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Kept nowhere: the process may end in any way at any time. */
static void say(const char *what, const char *domain, const char *name) {
    const char *path = getenv("RECORDER_OUT");
    pthread_mutex_lock(&lock);
    FILE *out = path ? fopen(path, "a") : NULL;
    if (out) {
        fprintf(out, "%s\t%lx\t%s\t%s\n", what, (unsigned long)pthread_self(), domain, name);
        fclose(out);
    }
    pthread_mutex_unlock(&lock);
}

static void wrong(const char *what) { say("wrong", "", what); }

static void uncalled(void) { wrong("a function that no range needs was called"); }

static void *domain_create(const char *name) {
    say("domain", name, "");
    return strdup(name);
}

static int range_push(void *domain, const struct Event *event) {
    if (event->version != 3 || event->size != sizeof *event || event->message_type != 1)
        wrong("an event is not what its header says");
    say("push", domain, event->message);
    return 0;
}

static int range_pop(void *domain) {
    say("pop", domain, "");
    return 0;
}

int InitializeInjectionNvtx2(const void *(*export_table)(uint32_t id)) {
    static const unsigned counts[] = {0, 16, 9, 15, 7, 16, 7};
    const char *does = getenv("RECORDER_DOES") ? getenv("RECORDER_DOES") : "";
    const struct Callbacks *callbacks = export_table(1);
    const struct VersionInfo *version = export_table(3);
    if (!callbacks || callbacks->size != sizeof *callbacks || !version || version->size != sizeof *version) {
        wrong("an exported table is missing or of another size");
        return 0;
    }
    if (version->version != 3 || export_table(0) || export_table(2) || export_table(4)) wrong("other tables than 1 and 3");
    version->tell_version(3);
    if (callbacks->slots_of(0, NULL, NULL) || callbacks->slots_of(7, NULL, NULL)) wrong("a module that is none");
    for (int module = 1; module <= 6; ++module) {
        Function **slots = NULL;
        unsigned count = 0;
        if (!callbacks->slots_of(module, &slots, &count) || count != counts[module] || slots[0] || slots[count]) {
            wrong("a module is not offered whole");
            return 0;
        }
        for (unsigned i = 1; i < count && strcmp(does, "nothing"); ++i) *slots[i] = uncalled;
        if (module != 5 || !strcmp(does, "nothing")) continue;
        *slots[4] = (Function)range_push;
        *slots[5] = (Function)range_pop;
        *slots[12] = (Function)domain_create;
    }
    return strcmp(does, "refuse") != 0;
}

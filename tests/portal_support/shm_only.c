// Preloaded into xdg-desktop-portal-wlr 0.7, which gives no picture where the compositor has no graphics card: it waits for a format of the
// card's own buffers, although it falls back to shared memory without their modifiers. This adds that format to what the compositor tells.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct wl_proxy;

// Events of zwlr_screencopy_frame_v1, in the order of the protocol.
struct frame_events {
    void (*buffer)(void *, struct wl_proxy *, uint32_t, uint32_t, uint32_t, uint32_t);
    void (*flags)(void *, struct wl_proxy *, uint32_t);
    void (*ready)(void *, struct wl_proxy *, uint32_t, uint32_t, uint32_t);
    void (*failed)(void *, struct wl_proxy *);
    void (*damage)(void *, struct wl_proxy *, uint32_t, uint32_t, uint32_t, uint32_t);
    void (*linux_dmabuf)(void *, struct wl_proxy *, uint32_t, uint32_t, uint32_t);
    void (*buffer_done)(void *, struct wl_proxy *);
};

static struct frame_events theirs, ours;

static void buffer(void *data, struct wl_proxy *frame, uint32_t format, uint32_t width, uint32_t height, uint32_t stride) {
    theirs.buffer(data, frame, format, width, height, stride);
    theirs.linux_dmabuf(data, frame, 0x34325258 /* XR24 */, width, height);
}

int wl_proxy_add_listener(struct wl_proxy *proxy, void (**implementation)(void), void *data) {
    int (*add)(struct wl_proxy *, void (**)(void), void *) = dlsym(RTLD_NEXT, "wl_proxy_add_listener");
    const char *(*class_of)(struct wl_proxy *) = dlsym(RTLD_NEXT, "wl_proxy_get_class");
    if (add == NULL || class_of == NULL) {
        abort();
    }
    if (strcmp(class_of(proxy), "zwlr_screencopy_frame_v1") == 0) {
        memcpy(&theirs, implementation, sizeof theirs);
        ours = theirs;
        ours.buffer = buffer;
        implementation = (void (**)(void))&ours;
    }
    return add(proxy, implementation, data);
}

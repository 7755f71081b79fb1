/* A camera made of nothing: an LD_PRELOAD library that answers Video4Linux calls for /dev/videoN.
 *
 *   cc -O2 -shared -fPIC -o libfakecam.so fakecam.c -ldl -lpthread
 *   LD_PRELOAD=./libfakecam.so FAKECAM_COUNT=2 program
 *
 * Every picture carries the test strip of the command line's page (id and Unix time in ms) and a moving bar, in YUYV, NV12
 * and MJPG (4:2:2, flat 8x8 blocks), so that a test can check content and latency through the real capture path.
 *
 *   FAKECAM_COUNT=n          cameras, named "Fakecam 0" …                           (1)
 *   FAKECAM_ID=n             id in the strip of camera 0; camera k has n + k        (7)
 *   FAKECAM_FORMATS=A,B      of YUYV NV12 MJPG                                      (all)
 *   FAKECAM_INTERVALS=a/b,…  time from picture to picture, in seconds               (1/30,1/15)
 *   FAKECAM_PADDING=n        bytes behind every row of YUYV and NV12                (0)
 *   FAKECAM_META=1           a metadata node before the first camera, as uvcvideo makes them
 *   FAKECAM_NAMES=a,b        names of the nodes, in order                           (Fakecam 0 …)
 *   FAKECAM_PORTS=n,m        sockets that the nodes are at; nodes at one socket are one device  (1,2 …)
 *   FAKECAM_NO_TABLES=1      MJPG without Huffman tables, as most webcams send it
 *   FAKECAM_BUSY=0,1         these cameras are in use elsewhere (EBUSY)
 *   FAKECAM_DENIED=0,1       these may not be opened (EACCES)
 *   FAKECAM_UNPLUG_AFTER=n   a camera is unplugged after n pictures (ENODEV, its node is gone)
 *   FAKECAM_UNPLUG=n         … this one                                             (0)
 *   FAKECAM_REPLUG_MS=ms     … and comes back after that time                       (never)
 *   FAKECAM_REPLUG_NODE=n    … as this node                                         (where it was)
 *   FAKECAM_STALL_AFTER=n    camera 0 gives no more pictures after n
 *   FAKECAM_STALL_MS=ms      … for that time                                        (for ever)
 *   FAKECAM_STALL_REOPEN=1   … until it is opened anew
 *   FAKECAM_HANG=open        whoever opens camera 0 never comes back
 *   FAKECAM_HANG=read        a stall is one of the driver: whoever waits does not come back before its end
 *   FAKECAM_CONTROL=path     a file that says what holds now: words of "unplugged n", "stalled n", "busy n"
 *   FAKECAM_LOG=path         one line for every open, streamon, streamoff and close
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_CAMERAS 8
#define MAX_HANDLES 32
#define BUFFERS 4

static const struct { uint32_t w, h; } SIZES[] = {{320, 180}, {640, 360}, {640, 480}, {1280, 720}, {1920, 1080}};
#define N_SIZES (sizeof SIZES / sizeof *SIZES)
#define MAX_INTERVALS 8

struct camera {
	int present, busy, denied, meta;
	int pulled, held, taken; /* by the control file: unplugged, stalled, busy */
	int id, port;
	char name[32];
	int owner; /* handle that has buffers, -1 if none */
	uint64_t pictures;
	int stalled_once, unplugged_once;
	uint64_t stalled_until_ms; /* UINT64_MAX: for ever */
	uint64_t back_at_ms;	   /* when an unplugged camera is back; 0: it is not unplugged */
};

struct handle {
	int fd, camera, used, gone, stalled;
	uint32_t w, h, fourcc;
	int interval;
	uint8_t *map;
	size_t buffer_size, picture_size;
	int queue[BUFFERS], queued, streaming;
	uint64_t next_ns, sequence;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct camera cameras[MAX_CAMERAS];
static struct handle handles[MAX_HANDLES];
static int count, first_id;
static uint32_t padding;
static int no_tables;
static struct v4l2_fract intervals[MAX_INTERVALS] = {{1, 30}, {1, 15}};
static int n_intervals = 2;
static const char *control_path;
static char directory[64];
static uint32_t formats[3];
static int n_formats;
static FILE *log_file;

static long (*real_syscall)(long, ...);
static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static DIR *(*real_opendir)(const char *);
static int (*real_poll)(struct pollfd *, nfds_t, int);
static ssize_t (*real_readlink)(const char *, char *, size_t);

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t mono_ms(void) { return now_ns(CLOCK_MONOTONIC) / 1000000; }

static long number(const char *name, long otherwise)
{
	const char *text = getenv(name);
	return text && *text ? atol(text) : otherwise;
}

static int listed(const char *name, int wanted)
{
	const char *text = getenv(name);
	while (text && *text) {
		char *end;
		long n = strtol(text, &end, 10);
		if (end == text)
			return 0;
		if (n == wanted)
			return 1;
		text = *end ? end + 1 : end;
	}
	return 0;
}

/* The word at this place of a list. */
static void word(const char *name, int place, const char *otherwise, char out[32])
{
	const char *text = getenv(name);
	for (; text && place > 0; place--) {
		text = strchr(text, ',');
		text = text ? text + 1 : NULL;
	}
	if (!text || !*text)
		text = otherwise;
	snprintf(out, 32, "%.*s", (int)strcspn(text, ","), text);
}

static void say(const char *what, int camera)
{
	if (log_file) {
		fprintf(log_file, "%s %d\n", what, camera);
		fflush(log_file);
	}
}

static void find_real(void)
{
	if (!real_syscall) {
		real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
		real_open = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
		real_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
		real_opendir = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
		real_poll = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
		real_readlink = (ssize_t (*)(const char *, char *, size_t))dlsym(RTLD_NEXT, "readlink");
	}
}

static int there(int n) { return n >= 0 && n < count && cameras[n].present && !cameras[n].pulled; }

/* The listing of /dev is a directory of our own with the nodes that are plugged in. */
static void list_nodes(void)
{
	for (int i = 0; i < count; i++) {
		char path[96];
		snprintf(path, sizeof path, "%s/video%d", directory, i);
		if (there(i)) {
			int fd = real_open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
			if (fd >= 0)
				real_close(fd);
		} else {
			unlink(path);
		}
	}
}

__attribute__((constructor)) static void start(void)
{
	find_real();
	int meta = number("FAKECAM_META", 0) != 0;
	long wanted = number("FAKECAM_COUNT", 1) + meta;
	const char *list = getenv("FAKECAM_INTERVALS");
	for (n_intervals = list && *list ? 0 : n_intervals; list && *list && n_intervals < MAX_INTERVALS;) {
		char *end;
		uint32_t above = (uint32_t)strtoul(list, &end, 10);
		uint32_t below = *end ? (uint32_t)strtoul(end + 1, &end, 10) : 1;
		intervals[n_intervals++] = (struct v4l2_fract){above, below};
		list = *end ? end + 1 : end;
	}
	control_path = getenv("FAKECAM_CONTROL");
	no_tables = number("FAKECAM_NO_TABLES", 0) != 0;
	padding = (uint32_t)number("FAKECAM_PADDING", 0);
	count = wanted < 0 ? 0 : wanted > MAX_CAMERAS ? MAX_CAMERAS : (int)wanted;
	first_id = (int)number("FAKECAM_ID", 7);
	for (int i = 0; i < count; i++) {
		cameras[i].present = 1;
		cameras[i].meta = meta && i == 0;
		cameras[i].busy = listed("FAKECAM_BUSY", i);
		cameras[i].denied = listed("FAKECAM_DENIED", i);
		cameras[i].owner = -1;
		cameras[i].id = i;
		char otherwise[32];
		snprintf(otherwise, sizeof otherwise, "%d", i + 1);
		word("FAKECAM_PORTS", i, otherwise, cameras[i].name);
		cameras[i].port = atoi(cameras[i].name);
		snprintf(otherwise, sizeof otherwise, "Fakecam %d", i);
		word("FAKECAM_NAMES", i, otherwise, cameras[i].name);
	}
	const char *chosen = getenv("FAKECAM_FORMATS");
	const char *names[] = {"YUYV", "NV12", "MJPG"};
	const uint32_t codes[] = {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_NV12, V4L2_PIX_FMT_MJPEG};
	for (int i = 0; i < 3; i++)
		if (!chosen || strstr(chosen, names[i]))
			formats[n_formats++] = codes[i];
	const char *path = getenv("FAKECAM_LOG");
	if (path)
		log_file = fopen(path, "ae");
	const char *tmp = getenv("TMPDIR");
	snprintf(directory, sizeof directory, "%.40s/fakecam-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(directory))
		directory[0] = 0;
	list_nodes();
}

__attribute__((destructor)) static void end(void)
{
	if (!directory[0])
		return;
	for (int i = 0; i < count; i++)
		cameras[i].present = 0;
	list_nodes();
	rmdir(directory);
}

/* Does what the control file says. */
static void obey(void)
{
	if (!control_path)
		return;
	char text[256] = "";
	int fd = real_open(control_path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t length = read(fd, text, sizeof text - 1);
		text[length > 0 ? length : 0] = 0;
		real_close(fd);
	}
	int changed = 0;
	for (int i = 0; i < count; i++) {
		struct camera *c = &cameras[i];
		char words[32];
		snprintf(words, sizeof words, "unplugged %d", i);
		int pulled = strstr(text, words) != NULL;
		changed |= pulled != c->pulled;
		if (pulled && !c->pulled)
			say("unplug", i);
		c->pulled = pulled;
		for (int k = 0; pulled && k < MAX_HANDLES; k++)
			if (handles[k].used && handles[k].camera == i)
				handles[k].gone = 1;
		snprintf(words, sizeof words, "stalled %d", i);
		c->held = strstr(text, words) != NULL;
		snprintf(words, sizeof words, "busy %d", i);
		c->taken = strstr(text, words) != NULL;
	}
	if (changed)
		list_nodes();
}

static void replug(void)
{
	obey();
	long to = number("FAKECAM_REPLUG_NODE", -1);
	for (int i = 0; i < count; i++)
		if (!cameras[i].present && cameras[i].back_at_ms && mono_ms() >= cameras[i].back_at_ms) {
			cameras[i].present = 1;
			cameras[i].back_at_ms = 0;
			if (to >= 0 && to < MAX_CAMERAS && to != i) {
				cameras[to] = cameras[i];
				cameras[to].owner = -1;
				cameras[i].present = 0;
				cameras[i].port = -1;
				count = to >= count ? (int)to + 1 : count;
			}
			list_nodes();
		}
}

static int node_number(const char *path, const char *prefix, const char *suffix)
{
	size_t length = strlen(prefix);
	if (strncmp(path, prefix, length) || path[length] < '0' || path[length] > '9')
		return -1;
	char *rest;
	long n = strtol(path + length, &rest, 10);
	return strcmp(rest, suffix) ? -1 : (int)n;
}

static int memory(const char *content)
{
	int fd = memfd_create("fakecam", MFD_CLOEXEC);
	if (fd >= 0 && content) {
		ssize_t written = write(fd, content, strlen(content));
		(void)written;
		lseek(fd, 0, SEEK_SET);
	}
	return fd;
}

/* Whether the path is ours; the descriptor or -1 with errno in *fd. */
static int fake_open(const char *path, int *fd)
{
	int index = 0;
	int n = node_number(path, "/sys/class/video4linux/video", "/name");
	if (n < 0)
		index = (n = node_number(path, "/sys/class/video4linux/video", "/index")) >= 0;
	if (n >= 0) {
		char text[40];
		if (!there(n)) {
			errno = ENOENT;
			*fd = -1;
			return 1;
		}
		if (index) {
			int before = 0;
			for (int i = 0; i < n; i++)
				before += cameras[i].port == cameras[n].port;
			snprintf(text, sizeof text, "%d\n", before);
		} else {
			snprintf(text, sizeof text, "%s\n", cameras[n].name);
		}
		*fd = memory(text);
		return 1;
	}
	n = node_number(path, "/dev/video", "");
	if (n < 0)
		return 0;
	pthread_mutex_lock(&lock);
	replug();
	*fd = -1;
	const char *hang = getenv("FAKECAM_HANG");
	if (n == 0 && hang && !strcmp(hang, "open")) {
		say("hang", n);
		pthread_mutex_unlock(&lock);
		for (;;)
			pause();
	}
	if (!there(n)) {
		errno = ENOENT;
	} else if (cameras[n].denied) {
		errno = EACCES;
	} else {
		for (int i = 0; i < MAX_HANDLES; i++) {
			struct handle *h = &handles[i];
			if (h->used)
				continue;
			memset(h, 0, sizeof *h);
			h->fd = *fd = memory(NULL);
			h->camera = n;
			h->used = 1;
			h->w = SIZES[0].w;
			h->h = SIZES[0].h;
			h->fourcc = formats[0];
			say("open", n);
			break;
		}
	}
	pthread_mutex_unlock(&lock);
	return 1;
}

int open64(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = va_arg(args, mode_t);
	va_end(args);
	int fd;
	find_real();
	if (fake_open(path, &fd))
		return fd;
	return real_open(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = va_arg(args, mode_t);
	va_end(args);
	return open64(path, flags, mode);
}

DIR *opendir(const char *path)
{
	find_real();
	if (directory[0] && (!strcmp(path, "/dev") || !strcmp(path, "/dev/"))) {
		pthread_mutex_lock(&lock);
		replug();
		pthread_mutex_unlock(&lock);
		return real_opendir(directory);
	}
	return real_opendir(path);
}

/* Where a node's device is, as sysfs says it. */
ssize_t readlink(const char *path, char *out, size_t limit)
{
	find_real();
	int n = node_number(path, "/sys/class/video4linux/video", "");
	if (n < 0)
		return real_readlink(path, out, limit);
	char target[160];
	if (!there(n)) {
		errno = ENOENT;
		return -1;
	}
	int port = cameras[n].port;
	int length = snprintf(target, sizeof target,
			      "../../devices/pci0000:00/0000:00:14.0/usb1/1-%d/1-%d:1.0/video4linux/video%d", port, port, n);
	size_t used = (size_t)length < limit ? (size_t)length : limit;
	memcpy(out, target, used);
	return (ssize_t)used;
}

static struct handle *find(int fd)
{
	for (int i = 0; i < MAX_HANDLES; i++)
		if (handles[i].used && handles[i].fd == fd)
			return &handles[i];
	return NULL;
}

static void free_buffers(struct handle *h)
{
	if (h->map)
		munmap(h->map, h->buffer_size * BUFFERS);
	h->map = NULL;
	h->queued = 0;
	if (cameras[h->camera].owner == (int)(h - handles))
		cameras[h->camera].owner = -1;
}

int close(int fd)
{
	find_real();
	pthread_mutex_lock(&lock);
	struct handle *h = find(fd);
	if (h) {
		free_buffers(h);
		h->used = 0;
		say("close", h->camera);
	}
	pthread_mutex_unlock(&lock);
	return real_close(fd);
}

/* The 40 bits of the strip: 1010, id, time, CRC-8 (0x07) over id and time. */
static uint64_t strip_bits(int id)
{
	uint32_t time = (uint32_t)(now_ns(CLOCK_REALTIME) / 1000000) & 0xfffff;
	uint32_t body = ((uint32_t)(id & 0xff) << 20) | time;
	uint8_t crc = 0;
	for (int byte = 3; byte >= 0; byte--) {
		crc ^= (uint8_t)(body >> (8 * byte));
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 0x80 ? (uint8_t)(crc << 1) ^ 0x07 : (uint8_t)(crc << 1);
	}
	return (0xaull << 36) | ((uint64_t)body << 8) | crc;
}

struct picture {
	uint32_t w, h, bar;
	uint64_t bits;
};

static uint8_t luma_at(const struct picture *p, uint32_t x, uint32_t y)
{
	if (y < p->h / 12)
		return (p->bits >> (39 - x * 40 / p->w)) & 1 ? 235 : 16;
	return x >= p->bar && x < p->bar + p->w / 16 ? 200 : (uint8_t)(40 + y * 100 / p->h);
}

struct jpeg {
	uint8_t *out;
	size_t length, limit;
	uint32_t bits;
	int n_bits;
};

static void put_byte(struct jpeg *j, uint8_t byte)
{
	if (j->length < j->limit)
		j->out[j->length++] = byte;
}

static void put_bits(struct jpeg *j, uint32_t value, int length)
{
	j->bits = (j->bits << length) | (value & ((1u << length) - 1));
	j->n_bits += length;
	while (j->n_bits >= 8) {
		uint8_t byte = (uint8_t)(j->bits >> (j->n_bits - 8));
		put_byte(j, byte);
		if (byte == 0xff)
			put_byte(j, 0);
		j->n_bits -= 8;
	}
}

/* One block that is flat: the difference of its value to the last one of its plane, then "no more". */
static void put_block(struct jpeg *j, int *last, int value)
{
	static const uint16_t codes[] = {0, 2, 3, 4, 5, 6, 14, 30, 62, 126, 254, 510};
	static const int lengths[] = {2, 3, 3, 3, 3, 3, 4, 5, 6, 7, 8, 9};
	int difference = value - *last, size = 0;
	*last = value;
	for (int d = difference < 0 ? -difference : difference; d; d >>= 1)
		size++;
	put_bits(j, codes[size], lengths[size]);
	if (size)
		put_bits(j, (uint32_t)(difference < 0 ? difference - 1 : difference), size);
	/* "No more": in a table of one code, or in the standard's. */
	if (no_tables)
		put_bits(j, 10, 4);
	else
		put_bits(j, 0, 1);
}

static size_t draw_jpeg(const struct picture *p, uint8_t *out, size_t limit)
{
	struct jpeg j = {out, 0, limit, 0, 0};
	uint8_t head[256];
	size_t n = 0;
	static const uint8_t start_of_image[] = {0xff, 0xd8};
	static const uint8_t sizes[] = {0xff, 0xc0, 0, 17, 8};
	static const uint8_t planes[] = {3, 1, 0x21, 0, 2, 0x11, 0, 3, 0x11, 0};
	static const uint8_t dc[] = {0xff, 0xc4, 0, 31, 0, 0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0,
				     0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
	static const uint8_t ac[] = {0xff, 0xc4, 0, 20, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
	static const uint8_t scan[] = {0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0};
	memcpy(head + n, start_of_image, sizeof start_of_image), n += sizeof start_of_image;
	static const uint8_t quantiser[] = {0xff, 0xdb, 0, 67, 0};
	memcpy(head + n, quantiser, sizeof quantiser), n += sizeof quantiser;
	memset(head + n, 8, 64), n += 64; /* a block's first number is then its value minus 128 */
	memcpy(head + n, sizes, sizeof sizes), n += sizeof sizes;
	head[n++] = (uint8_t)(p->h >> 8), head[n++] = (uint8_t)p->h;
	head[n++] = (uint8_t)(p->w >> 8), head[n++] = (uint8_t)p->w;
	memcpy(head + n, planes, sizeof planes), n += sizeof planes;
	if (!no_tables) {
		memcpy(head + n, dc, sizeof dc), n += sizeof dc;
		memcpy(head + n, ac, sizeof ac), n += sizeof ac;
	}
	memcpy(head + n, scan, sizeof scan), n += sizeof scan;
	for (size_t i = 0; i < n; i++)
		put_byte(&j, head[i]);
	int y = 0, cb = 0, cr = 0;
	for (uint32_t row = 0; row < p->h; row += 8)
		for (uint32_t column = 0; column < p->w; column += 16) {
			for (uint32_t x = column; x < column + 16; x += 8)
				put_block(&j, &y, (int)luma_at(p, x + 4, row + 4) - 128);
			put_block(&j, &cb, 12);
			put_block(&j, &cr, -12);
		}
	put_bits(&j, 0x7f, 7);
	put_byte(&j, 0xff);
	put_byte(&j, 0xd9);
	return j.length;
}

static uint32_t row_bytes(const struct handle *h)
{
	return (h->fourcc == V4L2_PIX_FMT_YUYV ? h->w * 2 : h->w) + padding;
}

static size_t draw(const struct handle *h, uint8_t *out)
{
	struct picture p = {h->w, h->h, (uint32_t)(h->sequence * 8 % h->w), strip_bits(first_id + cameras[h->camera].id)};
	if (h->fourcc == V4L2_PIX_FMT_MJPEG)
		return draw_jpeg(&p, out, h->buffer_size);
	uint8_t *chroma = out + (size_t)row_bytes(h) * h->h;
	for (uint32_t y = 0; y < h->h; y++) {
		for (uint32_t x = 0; x < h->w; x++) {
			uint8_t luma = luma_at(&p, x, y);
			if (h->fourcc == V4L2_PIX_FMT_YUYV) {
				*out++ = luma;
				*out++ = x & 1 ? 116 : 140;
			} else {
				*out++ = luma;
				if (!((x | y) & 1))
					*chroma++ = 140, *chroma++ = 116;
			}
		}
		out += padding;
		if (!(y & 1))
			chroma += padding;
	}
	return h->picture_size;
}

static size_t picture_size(const struct handle *h)
{
	size_t rows = (size_t)row_bytes(h) * h->h;
	if (h->fourcc == V4L2_PIX_FMT_MJPEG)
		return (size_t)h->w * h->h * 2;
	return h->fourcc == V4L2_PIX_FMT_NV12 ? rows * 3 / 2 : rows;
}

static void fill_format(const struct handle *h, struct v4l2_format *f)
{
	struct v4l2_pix_format *p = &f->fmt.pix;
	memset(p, 0, sizeof *p);
	p->width = h->w;
	p->height = h->h;
	p->pixelformat = h->fourcc;
	p->field = V4L2_FIELD_NONE;
	p->bytesperline = h->fourcc == V4L2_PIX_FMT_MJPEG ? 0 : row_bytes(h);
	p->sizeimage = (uint32_t)picture_size(h);
	p->colorspace = V4L2_COLORSPACE_SRGB;
}

static void set_format(struct handle *h, const struct v4l2_format *f)
{
	for (int i = 0; i < n_formats; i++)
		if (formats[i] == f->fmt.pix.pixelformat)
			h->fourcc = formats[i];
	uint32_t best = 0xffffffff;
	for (size_t i = 0; i < N_SIZES; i++) {
		uint32_t dw = SIZES[i].w > f->fmt.pix.width ? SIZES[i].w - f->fmt.pix.width : f->fmt.pix.width - SIZES[i].w;
		uint32_t dh = SIZES[i].h > f->fmt.pix.height ? SIZES[i].h - f->fmt.pix.height : f->fmt.pix.height - SIZES[i].h;
		if (dw + dh < best) {
			best = dw + dh;
			h->w = SIZES[i].w;
			h->h = SIZES[i].h;
		}
	}
}

static void rest_until(uint64_t deadline_ns)
{
	struct timespec t = {(time_t)(deadline_ns / 1000000000u), (long)(deadline_ns % 1000000000u)};
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static int fail(int code)
{
	errno = code;
	return -1;
}

static uint64_t interval_ns(const struct handle *h)
{
	const struct v4l2_fract *t = &intervals[h->interval];
	return 1000000000ull * t->numerator / t->denominator;
}

/* Lets happen what is due before the next picture. */
static void happen(struct handle *h)
{
	struct camera *c = &cameras[h->camera];
	long stall = number("FAKECAM_STALL_AFTER", -1), unplug = number("FAKECAM_UNPLUG_AFTER", -1);
	obey();
	if (h->camera == 0 && stall >= 0 && !c->stalled_once && c->pictures >= (uint64_t)stall) {
		c->stalled_once = 1;
		long ms = number("FAKECAM_STALL_MS", -1);
		say("stall", h->camera);
		if (number("FAKECAM_STALL_REOPEN", 0))
			h->stalled = 1;
		else
			c->stalled_until_ms = ms < 0 ? UINT64_MAX : mono_ms() + (uint64_t)ms;
	}
	if (h->camera == number("FAKECAM_UNPLUG", 0) && unplug >= 0 && !c->unplugged_once &&
	    c->pictures >= (uint64_t)unplug) {
		c->unplugged_once = 1;
		c->present = 0;
		long back = number("FAKECAM_REPLUG_MS", -1);
		c->back_at_ms = back < 0 ? 0 : mono_ms() + (uint64_t)back;
		h->gone = 1;
		list_nodes();
		say("unplug", h->camera);
	}
}

static int stalled(const struct handle *h)
{
	const struct camera *c = &cameras[h->camera];
	return h->stalled || c->held || mono_ms() < c->stalled_until_ms;
}

static int dequeue(struct handle *h, struct v4l2_buffer *b)
{
	struct camera *c = &cameras[h->camera];
	if (!h->streaming || !h->queued)
		return fail(EINVAL);
	if (h->gone)
		return fail(ENODEV);
	uint64_t now = now_ns(CLOCK_MONOTONIC);
	if (stalled(h) || now < h->next_ns)
		return fail(EAGAIN); /* opened with O_NONBLOCK */
	h->next_ns += interval_ns(h);
	if (h->next_ns + 1000000000u < now)
		h->next_ns = now;
	int index = h->queue[0];
	memmove(h->queue, h->queue + 1, (size_t)(--h->queued) * sizeof *h->queue);
	size_t used = draw(h, h->map + (size_t)index * h->buffer_size);
	b->index = (uint32_t)index;
	b->bytesused = (uint32_t)used;
	b->field = V4L2_FIELD_NONE;
	b->flags = V4L2_BUF_FLAG_MAPPED | V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
	b->sequence = (uint32_t)h->sequence++;
	uint64_t stamp = now_ns(CLOCK_MONOTONIC) / 1000;
	b->timestamp.tv_sec = (time_t)(stamp / 1000000);
	b->timestamp.tv_usec = (suseconds_t)(stamp % 1000000);
	c->pictures++;
	return 0;
}

static int answer(struct handle *h, unsigned long request, void *arg)
{
	struct camera *c = &cameras[h->camera];
	int self = (int)(h - handles);
	obey();
	if (h->gone || !there(h->camera))
		return fail(ENODEV);
	switch (request) {
	case VIDIOC_QUERYCAP: {
		struct v4l2_capability *cap = arg;
		memset(cap, 0, sizeof *cap);
		strcpy((char *)cap->driver, "fakecam");
		snprintf((char *)cap->card, sizeof cap->card, "%s", c->name);
		snprintf((char *)cap->bus_info, sizeof cap->bus_info, "usb-0000:00:14.0-%d", c->port);
		cap->version = 0x060100;
		cap->device_caps = (c->meta ? V4L2_CAP_META_CAPTURE : V4L2_CAP_VIDEO_CAPTURE) | V4L2_CAP_STREAMING;
		cap->capabilities = cap->device_caps | V4L2_CAP_DEVICE_CAPS;
		return 0;
	}
	case VIDIOC_ENUM_FMT: {
		struct v4l2_fmtdesc *d = arg;
		if (c->meta || d->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || d->index >= (uint32_t)n_formats)
			return fail(EINVAL);
		d->pixelformat = formats[d->index];
		d->flags = d->pixelformat == V4L2_PIX_FMT_MJPEG ? V4L2_FMT_FLAG_COMPRESSED : 0;
		memcpy(d->description, &d->pixelformat, 4);
		return 0;
	}
	case VIDIOC_ENUM_FRAMESIZES: {
		struct v4l2_frmsizeenum *s = arg;
		if (c->meta || s->index >= N_SIZES)
			return fail(EINVAL);
		s->type = V4L2_FRMSIZE_TYPE_DISCRETE;
		s->discrete.width = SIZES[s->index].w;
		s->discrete.height = SIZES[s->index].h;
		return 0;
	}
	case VIDIOC_ENUM_FRAMEINTERVALS: {
		struct v4l2_frmivalenum *i = arg;
		if (c->meta || i->index >= (uint32_t)n_intervals)
			return fail(EINVAL);
		i->type = V4L2_FRMIVAL_TYPE_DISCRETE;
		i->discrete = intervals[i->index];
		return 0;
	}
	case VIDIOC_G_FMT:
	case VIDIOC_S_FMT:
	case VIDIOC_TRY_FMT: {
		struct v4l2_format *f = arg;
		if (c->meta || f->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
			return fail(EINVAL);
		if (request == VIDIOC_S_FMT) {
			if (c->busy || c->taken || c->owner >= 0)
				return fail(EBUSY);
			set_format(h, f);
		}
		/* The format is the device's, whoever asks for it. */
		fill_format(request == VIDIOC_G_FMT && c->owner >= 0 ? &handles[c->owner] : h, f);
		return 0;
	}
	case VIDIOC_G_PARM:
	case VIDIOC_S_PARM: {
		struct v4l2_streamparm *p = arg;
		if (c->meta || p->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
			return fail(EINVAL);
		struct v4l2_fract *t = &p->parm.capture.timeperframe;
		double least = 1e9;
		for (int k = 0; request == VIDIOC_S_PARM && t->denominator && k < n_intervals; k++) {
			double off = (double)intervals[k].numerator / intervals[k].denominator -
				     (double)t->numerator / t->denominator;
			off = off < 0 ? -off : off;
			if (off < least) {
				least = off;
				h->interval = k;
			}
		}
		p->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
		*t = intervals[h->interval];
		return 0;
	}
	case VIDIOC_REQBUFS: {
		struct v4l2_requestbuffers *r = arg;
		if (c->meta || r->memory != V4L2_MEMORY_MMAP)
			return fail(EINVAL);
		if (((c->busy || c->taken || c->owner >= 0) && c->owner != self) || h->streaming)
			return fail(EBUSY);
		free_buffers(h);
		if (!r->count)
			return 0;
		h->picture_size = picture_size(h);
		/* Rounded up as drivers do: a reader must not take the buffer for the picture. */
		h->buffer_size = (h->picture_size + 4096 + 4095) & ~(size_t)4095;
		if (ftruncate(h->fd, (off_t)(h->buffer_size * BUFFERS)))
			return fail(ENOMEM);
		h->map = mmap(NULL, h->buffer_size * BUFFERS, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, 0);
		if (h->map == MAP_FAILED) {
			h->map = NULL;
			return fail(ENOMEM);
		}
		memset(h->map, 0xa5, h->buffer_size * BUFFERS);
		c->owner = self;
		r->count = BUFFERS;
		return 0;
	}
	case VIDIOC_QUERYBUF: {
		struct v4l2_buffer *b = arg;
		if (!h->map || b->index >= BUFFERS)
			return fail(EINVAL);
		b->length = (uint32_t)h->buffer_size;
		b->m.offset = (uint32_t)(b->index * h->buffer_size);
		return 0;
	}
	case VIDIOC_QBUF: {
		struct v4l2_buffer *b = arg;
		if (!h->map || b->index >= BUFFERS || h->queued >= BUFFERS)
			return fail(EINVAL);
		h->queue[h->queued++] = (int)b->index;
		return 0;
	}
	case VIDIOC_DQBUF:
		return dequeue(h, arg);
	case VIDIOC_STREAMON:
		if (!h->map)
			return fail(EINVAL);
		h->streaming = 1;
		h->next_ns = now_ns(CLOCK_MONOTONIC) + interval_ns(h);
		say("streamon", h->camera);
		return 0;
	case VIDIOC_STREAMOFF:
		if (h->streaming)
			say("streamoff", h->camera);
		h->streaming = 0;
		h->queued = 0;
		return 0;
	default:
		return fail(ENOTTY);
	}
}

/* Whether the descriptor is ours: waits as the driver would. */
static int fake_poll(struct pollfd *asked, int timeout_ms, int *result)
{
	pthread_mutex_lock(&lock);
	struct handle *h = find(asked->fd);
	uint64_t end = timeout_ms < 0 ? UINT64_MAX : now_ns(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000u;
	const char *hang = getenv("FAKECAM_HANG");
	int ours = h != NULL, hangs = hang && !strcmp(hang, "read");
	*result = 0;
	while (ours) {
		if (!h->used || h->fd != asked->fd) {
			asked->revents = POLLNVAL;
			*result = 1;
			break;
		}
		happen(h);
		uint64_t now = now_ns(CLOCK_MONOTONIC);
		int still = stalled(h);
		if (h->gone || !h->streaming || !h->queued)
			asked->revents = POLLERR;
		else if (!still && now >= h->next_ns)
			asked->revents = POLLIN;
		else
			asked->revents = 0;
		if (asked->revents) {
			*result = 1;
			break;
		}
		if (now >= end && !(still && hangs))
			break;
		uint64_t wake = now + 5000000u;
		if (!still && h->next_ns < wake)
			wake = h->next_ns;
		if (end < wake && end > now)
			wake = end;
		pthread_mutex_unlock(&lock);
		rest_until(wake);
		pthread_mutex_lock(&lock);
	}
	pthread_mutex_unlock(&lock);
	return ours;
}

int poll(struct pollfd *asked, nfds_t n, int timeout_ms)
{
	int result;
	find_real();
	if (n == 1 && fake_poll(asked, timeout_ms, &result))
		return result;
	return real_poll(asked, n, timeout_ms);
}

static int fake_ioctl(int fd, unsigned long request, void *arg, int *result)
{
	pthread_mutex_lock(&lock);
	struct handle *h = find(fd);
	if (h)
		*result = answer(h, request & 0xffffffffu, arg);
	pthread_mutex_unlock(&lock);
	return h != NULL;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	va_start(args, request);
	void *arg = va_arg(args, void *);
	va_end(args);
	int result;
	find_real();
	if (fake_ioctl(fd, request, arg, &result))
		return result;
	return (int)real_syscall(SYS_ioctl, fd, request, arg);
}

long syscall(long n, ...)
{
	va_list args;
	va_start(args, n);
	long a = va_arg(args, long), b = va_arg(args, long), c = va_arg(args, long);
	long d = va_arg(args, long), e = va_arg(args, long), f = va_arg(args, long);
	va_end(args);
	int result;
	find_real();
	if (n == SYS_ioctl && fake_ioctl((int)a, (unsigned long)b, (void *)c, &result))
		return result;
	return real_syscall(n, a, b, c, d, e, f);
}

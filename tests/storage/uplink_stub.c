// A library with the C interface of libuplinkc and a store in memory, for tests: it counts what was not freed, and
// fails where a key says so. "stat-09" fails stat with code 0x09; "write-hang" hangs until the project is closed,
// "write-stuck" for ever; "read-crash" ends the process. OP is one of stat, delete, begin, write, commit, open, read,
// list, ensure, revoke.
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uplink.h"

static atomic_long live;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

typedef struct Stored { char *key; uint8_t *data; size_t size; struct Stored *next; } Stored;
static Stored *store;

typedef struct Project { size_t _handle; atomic_bool closed; } Project;
typedef struct Upload { size_t _handle; Project *project; char key[256]; uint8_t *data; size_t size; bool done; } Upload;
typedef struct Download { size_t _handle; Project *project; Stored *of; size_t at; } Download;
typedef struct Listing { size_t _handle; Project *project; char prefix[256]; Stored *at; bool begun; } Listing;
typedef struct Access { size_t _handle; char text[4096]; } Access;

long stub_live(void) { return live; }

static void *take(size_t size) { live++; return calloc(1, size ? size : 1); }
static void give(void *pointer) { if (pointer) { live--; free(pointer); } }
static char *text(const char *from) { char *copy = take(strlen(from) + 1); strcpy(copy, from); return copy; }

static UplinkError *failed(int32_t code, const char *message) {
	UplinkError *error = take(sizeof *error);
	error->code = code;
	error->message = message ? text(message) : NULL;
	return error;
}

static UplinkError *fault(Project *project, const char *op, const char *key) {
	char word[32];
	snprintf(word, sizeof word, "%s-", op);
	const char *found = strstr(key, word);
	if (!found) return NULL;
	found += strlen(word);
	if (!strncmp(found, "crash", 5)) abort();
	if (!strncmp(found, "stuck", 5)) for (;;) pause();
	if (!strncmp(found, "hang", 4)) {
		while (!project->closed) usleep(1000);
		return failed(UPLINK_ERROR_CANCELED, "context canceled");
	}
	if (!strncmp(found, "stands", 6))
		return failed(UPLINK_ERROR_PERMISSION_DENIED, "uplink: no permissions to delete existing object");
	return failed((int32_t)strtol(found, NULL, 16),
	              "the stub says\nno to 1NfEFS9eR2QA5o6dov3QGNWrFRYZcufde1EcfS99cJB5ZewJZrWpJEZX");
}

static Stored *look(const char *key) {
	for (Stored *each = store; each; each = each->next) if (!strcmp(each->key, key)) return each;
	return NULL;
}

static UplinkObject *told(const Stored *stored) {
	UplinkObject *object = take(sizeof *object);
	object->key = text(stored->key);
	object->system.content_length = (int64_t)stored->size;
	return object;
}

// Access and project.

UplinkAccessResult uplink_parse_access(const char *grant) {
	if (strncmp(grant, "grant", 5)) return (UplinkAccessResult){NULL, failed(UPLINK_ERROR_INTERNAL, "no grant")};
	Access *access = take(sizeof *access);
	strncpy(access->text, grant, sizeof access->text - 1);
	return (UplinkAccessResult){(UplinkAccess *)access, NULL};
}

UplinkAccessResult uplink_request_access_with_passphrase(const char *satellite, const char *key, const char *pass) {
	(void)pass;
	if (!strcmp(satellite, "denied")) return (UplinkAccessResult){NULL, failed(UPLINK_ERROR_PERMISSION_DENIED, "no")};
	if (!strcmp(key, "bad")) return (UplinkAccessResult){NULL, failed(UPLINK_ERROR_INTERNAL, "uplink: api key format")};
	return uplink_parse_access("grant-root");
}

UplinkStringResult uplink_access_serialize(UplinkAccess *access) {
	return (UplinkStringResult){text(((Access *)access)->text), NULL};
}

UplinkAccessResult uplink_access_share(UplinkAccess *of, UplinkPermission p, UplinkSharePrefix *prefixes, size_t n) {
	Access *access = take(sizeof *access);
	snprintf(access->text, sizeof access->text, "%.999s|%d%d%d%d|%lld|%lld|%zu|%.99s|%.99s", ((Access *)of)->text,
	         p.allow_download, p.allow_upload, p.allow_list, p.allow_delete, (long long)p.not_before,
	         (long long)p.not_after, n, prefixes[0].bucket, prefixes[0].prefix);
	return (UplinkAccessResult){(UplinkAccess *)access, NULL};
}

UplinkProjectResult uplink_open_project(UplinkAccess *access) {
	(void)access;
	return (UplinkProjectResult){take(sizeof(Project)), NULL};
}

UplinkError *uplink_close_project(UplinkProject *project) {
	((Project *)project)->closed = true;
	return failed(UPLINK_ERROR_CANCELED, "an error that must be freed");
}

UplinkError *uplink_revoke_access(UplinkProject *project, UplinkAccess *access) {
	return fault((Project *)project, "revoke", ((Access *)access)->text);
}

UplinkBucketResult uplink_ensure_bucket(UplinkProject *project, const char *name) {
	UplinkError *error = fault((Project *)project, "ensure", name);
	if (error) return (UplinkBucketResult){NULL, error};
	UplinkBucket *bucket = take(sizeof *bucket);
	bucket->name = text(name);
	return (UplinkBucketResult){bucket, NULL};
}

// Objects.

UplinkObjectResult uplink_stat_object(UplinkProject *project, const char *bucket, const char *key) {
	(void)bucket;
	UplinkError *error = fault((Project *)project, "stat", key);
	if (error) return (UplinkObjectResult){NULL, error};
	pthread_mutex_lock(&lock);
	Stored *found = look(key);
	UplinkObjectResult result = {found ? told(found) : NULL, found ? NULL : failed(UPLINK_ERROR_OBJECT_NOT_FOUND, key)};
	pthread_mutex_unlock(&lock);
	return result;
}

UplinkObjectResult uplink_delete_object(UplinkProject *project, const char *bucket, const char *key) {
	(void)bucket;
	UplinkError *error = fault((Project *)project, "delete", key);
	if (error) return (UplinkObjectResult){NULL, error};
	pthread_mutex_lock(&lock);
	for (Stored **each = &store; *each; each = &(*each)->next)
		if (!strcmp((*each)->key, key)) { *each = (*each)->next; break; }
	pthread_mutex_unlock(&lock);
	return (UplinkObjectResult){NULL, NULL};
}

UplinkObjectIterator *uplink_list_objects(UplinkProject *project, const char *bucket, UplinkListObjectsOptions *options) {
	(void)bucket;
	Listing *listing = take(sizeof *listing);
	listing->project = (Project *)project;
	strncpy(listing->prefix, options->prefix, sizeof listing->prefix - 1);
	return (UplinkObjectIterator *)listing;
}

bool uplink_object_iterator_next(UplinkObjectIterator *handle) {
	Listing *listing = (Listing *)handle;
	do {
		listing->at = listing->begun ? listing->at->next : store;
		listing->begun = true;
	} while (listing->at && strncmp(listing->at->key, listing->prefix, strlen(listing->prefix)));
	return listing->at != NULL;
}

UplinkObject *uplink_object_iterator_item(UplinkObjectIterator *handle) { return told(((Listing *)handle)->at); }

UplinkError *uplink_object_iterator_err(UplinkObjectIterator *handle) {
	Listing *listing = (Listing *)handle;
	return listing->begun ? fault(listing->project, "list", listing->prefix) : NULL;
}

// Transfers.

UplinkUploadResult uplink_upload_object(UplinkProject *project, const char *bucket, const char *key, void *options) {
	(void)bucket; (void)options;
	UplinkError *error = fault((Project *)project, "begin", key);
	if (error) return (UplinkUploadResult){NULL, error};
	Upload *upload = take(sizeof *upload);
	upload->project = (Project *)project;
	strncpy(upload->key, key, sizeof upload->key - 1);
	return (UplinkUploadResult){(UplinkUpload *)upload, NULL};
}

UplinkWriteResult uplink_upload_write(UplinkUpload *handle, void *bytes, size_t size) {
	Upload *upload = (Upload *)handle;
	UplinkError *error = fault(upload->project, "write", upload->key);
	if (error) return (UplinkWriteResult){0, error};
	// Short writes are allowed.
	if (size > 1000) size = size / 2 + 1;
	upload->data = realloc(upload->data, upload->size + size);
	memcpy(upload->data + upload->size, bytes, size);
	upload->size += size;
	return (UplinkWriteResult){size, NULL};
}

UplinkError *uplink_upload_commit(UplinkUpload *handle) {
	Upload *upload = (Upload *)handle;
	UplinkError *error = fault(upload->project, "commit", upload->key);
	if (error) return error;
	Stored *stored = calloc(1, sizeof *stored);
	*stored = (Stored){strdup(upload->key), upload->data, upload->size, NULL};
	upload->done = true;
	pthread_mutex_lock(&lock);
	stored->next = store;
	store = stored;
	pthread_mutex_unlock(&lock);
	return NULL;
}

UplinkError *uplink_upload_abort(UplinkUpload *handle) {
	if (!((Upload *)handle)->done) free(((Upload *)handle)->data);
	return NULL;
}

UplinkDownloadResult uplink_download_object(UplinkProject *project, const char *bucket, const char *key, void *options) {
	(void)bucket; (void)options;
	UplinkError *error = fault((Project *)project, "open", key);
	pthread_mutex_lock(&lock);
	Stored *found = look(key);
	pthread_mutex_unlock(&lock);
	if (!error && !found) error = failed(UPLINK_ERROR_OBJECT_NOT_FOUND, key);
	if (error) return (UplinkDownloadResult){NULL, error};
	Download *download = take(sizeof *download);
	download->project = (Project *)project;
	download->of = found;
	return (UplinkDownloadResult){(UplinkDownload *)download, NULL};
}

UplinkReadResult uplink_download_read(UplinkDownload *handle, void *bytes, size_t size) {
	Download *download = (Download *)handle;
	UplinkError *error = fault(download->project, "read", download->of->key);
	if (error) return (UplinkReadResult){0, error};
	size_t left = download->of->size - download->at;
	size_t moved = left < size ? left : size;
	if (moved > 70000) moved = 70000;
	memcpy(bytes, download->of->data + download->at, moved);
	download->at += moved;
	// The last bytes come together with the end, as io.Reader allows.
	return (UplinkReadResult){moved, download->at == download->of->size ? failed(EOF, NULL) : NULL};
}

UplinkError *uplink_close_download(UplinkDownload *handle) { (void)handle; return NULL; }

// Freeing.

void uplink_free_error(UplinkError *error) { if (error) { give(error->message); give(error); } }
void uplink_free_object(UplinkObject *object) { if (object) { give(object->key); give(object); } }
void uplink_free_object_iterator(UplinkObjectIterator *listing) { give(listing); }
#define FREE(kind, Kind, field) \
	void uplink_free_##kind##_result(Uplink##Kind##Result r) { uplink_free_error(r.error); give(r.field); }
FREE(access, Access, access)
FREE(string, String, string)
FREE(project, Project, project)
FREE(upload, Upload, upload)
FREE(download, Download, download)
void uplink_free_object_result(UplinkObjectResult r) { uplink_free_error(r.error); uplink_free_object(r.object); }
void uplink_free_bucket_result(UplinkBucketResult r) {
	uplink_free_error(r.error);
	if (r.bucket) { give(r.bucket->name); give(r.bucket); }
}

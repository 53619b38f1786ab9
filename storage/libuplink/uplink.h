// The C side of the Storj library: names, structs and codes as storj.io/uplink-c has them (v1.2.2 and later), because
// uplink-python and other callers were written for those. Times are Unix seconds, 0 = none.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef const char uplink_const_char;

// A handle is a number in a table on the Go side. Whoever gets a pointer here frees it with the matching free function.
typedef struct UplinkHandle { size_t _handle; } UplinkHandle;
typedef struct UplinkAccess { size_t _handle; } UplinkAccess;
typedef struct UplinkProject { size_t _handle; } UplinkProject;
typedef struct UplinkUpload { size_t _handle; } UplinkUpload;
typedef struct UplinkDownload { size_t _handle; } UplinkDownload;
typedef struct UplinkBucketIterator { size_t _handle; } UplinkBucketIterator;
typedef struct UplinkObjectIterator { size_t _handle; } UplinkObjectIterator;
typedef struct UplinkEncryptionKey { size_t _handle; } UplinkEncryptionKey;

typedef struct UplinkConfig {
	uplink_const_char *user_agent;
	int32_t dial_timeout_milliseconds;
	uplink_const_char *temp_directory;
} UplinkConfig;

typedef struct UplinkPermission {
	bool allow_download, allow_upload, allow_list, allow_delete;
	int64_t not_before, not_after;
} UplinkPermission;

typedef struct UplinkSharePrefix { uplink_const_char *bucket, *prefix; } UplinkSharePrefix;

typedef struct UplinkBucket {
	char *name;
	int64_t created;
} UplinkBucket;

typedef struct UplinkSystemMetadata { int64_t created, expires, content_length; } UplinkSystemMetadata;

typedef struct UplinkCustomMetadataEntry {
	char *key;
	size_t key_length;
	char *value;
	size_t value_length;
} UplinkCustomMetadataEntry;

typedef struct UplinkCustomMetadata {
	UplinkCustomMetadataEntry *entries;
	size_t count;
} UplinkCustomMetadata;

typedef struct UplinkObject {
	char *key;
	bool is_prefix;
	UplinkSystemMetadata system;
	UplinkCustomMetadata custom;
} UplinkObject;

typedef struct UplinkUploadOptions { int64_t expires; } UplinkUploadOptions;
typedef struct UplinkDownloadOptions { int64_t offset, length; } UplinkDownloadOptions;
typedef struct UplinkListBucketsOptions { uplink_const_char *cursor; } UplinkListBucketsOptions;

typedef struct UplinkListObjectsOptions {
	uplink_const_char *prefix, *cursor;
	bool recursive, system, custom;
} UplinkListObjectsOptions;

typedef struct UplinkError {
	int32_t code;
	char *message;
} UplinkError;

// A negative code is the EOF of <stdio.h>: the end of an object, without a message.
#define UPLINK_ERROR_INTERNAL 0x02
#define UPLINK_ERROR_CANCELED 0x03
#define UPLINK_ERROR_INVALID_HANDLE 0x04
#define UPLINK_ERROR_TOO_MANY_REQUESTS 0x05
#define UPLINK_ERROR_BANDWIDTH_LIMIT_EXCEEDED 0x06
#define UPLINK_ERROR_STORAGE_LIMIT_EXCEEDED 0x07
#define UPLINK_ERROR_SEGMENTS_LIMIT_EXCEEDED 0x08
#define UPLINK_ERROR_PERMISSION_DENIED 0x09
#define UPLINK_ERROR_BUCKET_NAME_INVALID 0x10
#define UPLINK_ERROR_BUCKET_ALREADY_EXISTS 0x11
#define UPLINK_ERROR_BUCKET_NOT_EMPTY 0x12
#define UPLINK_ERROR_BUCKET_NOT_FOUND 0x13
#define UPLINK_ERROR_OBJECT_KEY_INVALID 0x20
#define UPLINK_ERROR_OBJECT_NOT_FOUND 0x21
#define UPLINK_ERROR_UPLOAD_DONE 0x22

typedef struct UplinkAccessResult { UplinkAccess *access; UplinkError *error; } UplinkAccessResult;
typedef struct UplinkProjectResult { UplinkProject *project; UplinkError *error; } UplinkProjectResult;
typedef struct UplinkBucketResult { UplinkBucket *bucket; UplinkError *error; } UplinkBucketResult;
typedef struct UplinkObjectResult { UplinkObject *object; UplinkError *error; } UplinkObjectResult;
typedef struct UplinkUploadResult { UplinkUpload *upload; UplinkError *error; } UplinkUploadResult;
typedef struct UplinkDownloadResult { UplinkDownload *download; UplinkError *error; } UplinkDownloadResult;
typedef struct UplinkStringResult { char *string; UplinkError *error; } UplinkStringResult;
typedef struct UplinkWriteResult { size_t bytes_written; UplinkError *error; } UplinkWriteResult;
typedef struct UplinkReadResult { size_t bytes_read; UplinkError *error; } UplinkReadResult;
typedef struct UplinkEncryptionKeyResult { UplinkEncryptionKey *encryption_key; UplinkError *error; } UplinkEncryptionKeyResult;

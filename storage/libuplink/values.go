package main

/*
#include <stdlib.h>
#include "uplink.h"
*/
import "C"

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
	"unsafe"

	"storj.io/uplink"
)

var errHandle = errors.New("invalid handle")

// table keeps Go values alive while C holds their numbers.
var table = struct {
	sync.Mutex
	next   C.size_t
	values map[C.size_t]any
}{values: map[C.size_t]any{}}

// keep gives a C struct of one size_t, which is the form of every handle.
func keep(value any) *C.UplinkHandle {
	table.Lock()
	defer table.Unlock()
	table.next++
	table.values[table.next] = value
	handle := (*C.UplinkHandle)(C.malloc(C.size_t(unsafe.Sizeof(C.UplinkHandle{}))))
	handle._handle = table.next
	return handle
}

// at is the value behind a handle of any kind; nil pointers and foreign numbers give errHandle.
func at[T any](pointer unsafe.Pointer) (T, error) {
	var none T
	if pointer == nil {
		return none, errHandle
	}
	table.Lock()
	defer table.Unlock()
	value, ok := table.values[(*C.UplinkHandle)(pointer)._handle].(T)
	if !ok {
		return none, errHandle
	}
	return value, nil
}

// drop frees a handle and gives the value that it kept alive, or nil.
func drop(pointer unsafe.Pointer) any {
	if pointer == nil {
		return nil
	}
	table.Lock()
	defer table.Unlock()
	handle := (*C.UplinkHandle)(pointer)
	value := table.values[handle._handle]
	delete(table.values, handle._handle)
	C.free(pointer)
	return value
}

// project is what a caller opened, with a context that ends everything which is going on in it.
type project struct {
	*uplink.Project
	ctx    context.Context
	cancel context.CancelFunc
}

// transfer is an upload or a download with a context of its own.
type transfer[T any] struct {
	of     T
	cancel context.CancelFunc
}

type objects struct {
	*uplink.ObjectIterator
	cancel context.CancelFunc
}

type buckets struct {
	*uplink.BucketIterator
	cancel context.CancelFunc
}

var codes = []struct {
	err  error
	code C.int32_t
}{
	{io.EOF, C.EOF},
	{errHandle, C.UPLINK_ERROR_INVALID_HANDLE},
	{context.Canceled, C.UPLINK_ERROR_CANCELED},
	{uplink.ErrTooManyRequests, C.UPLINK_ERROR_TOO_MANY_REQUESTS},
	{uplink.ErrBandwidthLimitExceeded, C.UPLINK_ERROR_BANDWIDTH_LIMIT_EXCEEDED},
	{uplink.ErrStorageLimitExceeded, C.UPLINK_ERROR_STORAGE_LIMIT_EXCEEDED},
	{uplink.ErrSegmentsLimitExceeded, C.UPLINK_ERROR_SEGMENTS_LIMIT_EXCEEDED},
	{uplink.ErrPermissionDenied, C.UPLINK_ERROR_PERMISSION_DENIED},
	{uplink.ErrBucketNameInvalid, C.UPLINK_ERROR_BUCKET_NAME_INVALID},
	{uplink.ErrBucketAlreadyExists, C.UPLINK_ERROR_BUCKET_ALREADY_EXISTS},
	{uplink.ErrBucketNotEmpty, C.UPLINK_ERROR_BUCKET_NOT_EMPTY},
	{uplink.ErrBucketNotFound, C.UPLINK_ERROR_BUCKET_NOT_FOUND},
	{uplink.ErrObjectKeyInvalid, C.UPLINK_ERROR_OBJECT_KEY_INVALID},
	{uplink.ErrObjectNotFound, C.UPLINK_ERROR_OBJECT_NOT_FOUND},
	{uplink.ErrUploadDone, C.UPLINK_ERROR_UPLOAD_DONE},
}

// failure is nil for nil; otherwise the caller frees it with uplink_free_error or with the result that holds it.
func failure(err error) *C.UplinkError {
	if err == nil {
		return nil
	}
	told := (*C.UplinkError)(C.calloc(1, C.size_t(unsafe.Sizeof(C.UplinkError{}))))
	told.code = C.UPLINK_ERROR_INTERNAL
	for _, known := range codes {
		if errors.Is(err, known.err) {
			told.code = known.code
			break
		}
	}
	if told.code != C.EOF {
		told.message = C.CString(err.Error())
	}
	return told
}

func seconds(t time.Time) C.int64_t {
	if t.IsZero() {
		return 0
	}
	return C.int64_t(t.Unix())
}

func moment(unix C.int64_t) time.Time {
	if unix == 0 {
		return time.Time{}
	}
	return time.Unix(int64(unix), 0)
}

func bucketResult(bucket *uplink.Bucket, err error) (result C.UplinkBucketResult) {
	result.error = failure(err)
	if bucket != nil && err == nil {
		result.bucket = cBucket(bucket)
	}
	return result
}

func cBucket(bucket *uplink.Bucket) *C.UplinkBucket {
	told := (*C.UplinkBucket)(C.calloc(1, C.size_t(unsafe.Sizeof(C.UplinkBucket{}))))
	told.name, told.created = C.CString(bucket.Name), seconds(bucket.Created)
	return told
}

func objectResult(object *uplink.Object, err error) (result C.UplinkObjectResult) {
	result.error = failure(err)
	if object != nil && err == nil {
		result.object = cObject(object)
	}
	return result
}

func cObject(object *uplink.Object) *C.UplinkObject {
	told := (*C.UplinkObject)(C.calloc(1, C.size_t(unsafe.Sizeof(C.UplinkObject{}))))
	told.key, told.is_prefix = C.CString(object.Key), C.bool(object.IsPrefix)
	told.system = C.UplinkSystemMetadata{
		created: seconds(object.System.Created), expires: seconds(object.System.Expires),
		content_length: C.int64_t(object.System.ContentLength),
	}
	if count := len(object.Custom); count > 0 {
		size := C.size_t(unsafe.Sizeof(C.UplinkCustomMetadataEntry{}))
		told.custom.entries = (*C.UplinkCustomMetadataEntry)(C.calloc(C.size_t(count), size))
		told.custom.count = C.size_t(count)
		entries, i := unsafe.Slice(told.custom.entries, count), 0
		for key, value := range object.Custom {
			entries[i] = C.UplinkCustomMetadataEntry{
				key: C.CString(key), key_length: C.size_t(len(key)),
				value: C.CString(value), value_length: C.size_t(len(value)),
			}
			i++
		}
	}
	return told
}

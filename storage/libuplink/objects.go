package main

/*
#include <stdlib.h>
#include "uplink.h"
*/
import "C"

import (
	"context"
	"unsafe"

	"storj.io/uplink"
)

//export uplink_create_bucket
func uplink_create_bucket(handle *C.UplinkProject, name *C.uplink_const_char) C.UplinkBucketResult {
	return onBucket(handle, name, (*uplink.Project).CreateBucket)
}

//export uplink_ensure_bucket
func uplink_ensure_bucket(handle *C.UplinkProject, name *C.uplink_const_char) C.UplinkBucketResult {
	return onBucket(handle, name, (*uplink.Project).EnsureBucket)
}

//export uplink_stat_bucket
func uplink_stat_bucket(handle *C.UplinkProject, name *C.uplink_const_char) C.UplinkBucketResult {
	return onBucket(handle, name, (*uplink.Project).StatBucket)
}

//export uplink_delete_bucket
func uplink_delete_bucket(handle *C.UplinkProject, name *C.uplink_const_char) C.UplinkBucketResult {
	return onBucket(handle, name, (*uplink.Project).DeleteBucket)
}

func onBucket(handle *C.UplinkProject, name *C.uplink_const_char, call func(*uplink.Project, context.Context, string) (*uplink.Bucket, error)) C.UplinkBucketResult {
	p, err := at[*project](unsafe.Pointer(handle))
	if err != nil {
		return bucketResult(nil, err)
	}
	return bucketResult(call(p.Project, p.ctx, C.GoString(name)))
}

//export uplink_stat_object
func uplink_stat_object(handle *C.UplinkProject, bucket, key *C.uplink_const_char) C.UplinkObjectResult {
	return onObject(handle, bucket, key, (*uplink.Project).StatObject)
}

//export uplink_delete_object
func uplink_delete_object(handle *C.UplinkProject, bucket, key *C.uplink_const_char) C.UplinkObjectResult {
	return onObject(handle, bucket, key, (*uplink.Project).DeleteObject)
}

func onObject(handle *C.UplinkProject, bucket, key *C.uplink_const_char, call func(*uplink.Project, context.Context, string, string) (*uplink.Object, error)) C.UplinkObjectResult {
	p, err := at[*project](unsafe.Pointer(handle))
	if err != nil {
		return objectResult(nil, err)
	}
	return objectResult(call(p.Project, p.ctx, C.GoString(bucket), C.GoString(key)))
}

// A listing is refused or breaks off inside `next`: ask for the error after the last one.
//
//export uplink_list_objects
func uplink_list_objects(handle *C.UplinkProject, bucket *C.uplink_const_char, options *C.UplinkListObjectsOptions) *C.UplinkObjectIterator {
	p, err := at[*project](unsafe.Pointer(handle))
	if err != nil {
		return (*C.UplinkObjectIterator)(unsafe.Pointer(keep(err)))
	}
	wanted := &uplink.ListObjectsOptions{}
	if options != nil {
		wanted.Prefix, wanted.Cursor = C.GoString(options.prefix), C.GoString(options.cursor)
		wanted.Recursive, wanted.System, wanted.Custom = bool(options.recursive), bool(options.system), bool(options.custom)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	listing := p.ListObjects(ctx, C.GoString(bucket), wanted)
	return (*C.UplinkObjectIterator)(unsafe.Pointer(keep(&objects{listing, cancel})))
}

//export uplink_object_iterator_next
func uplink_object_iterator_next(handle *C.UplinkObjectIterator) C.bool {
	listing, err := at[*objects](unsafe.Pointer(handle))
	return C.bool(err == nil && listing.Next())
}

//export uplink_object_iterator_err
func uplink_object_iterator_err(handle *C.UplinkObjectIterator) *C.UplinkError {
	return iteratorError[*objects](unsafe.Pointer(handle))
}

//export uplink_object_iterator_item
func uplink_object_iterator_item(handle *C.UplinkObjectIterator) *C.UplinkObject {
	if listing, err := at[*objects](unsafe.Pointer(handle)); err == nil && listing.Item() != nil {
		return cObject(listing.Item())
	}
	return nil
}

//export uplink_list_buckets
func uplink_list_buckets(handle *C.UplinkProject, options *C.UplinkListBucketsOptions) *C.UplinkBucketIterator {
	p, err := at[*project](unsafe.Pointer(handle))
	if err != nil {
		return (*C.UplinkBucketIterator)(unsafe.Pointer(keep(err)))
	}
	wanted := &uplink.ListBucketsOptions{}
	if options != nil {
		wanted.Cursor = C.GoString(options.cursor)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	return (*C.UplinkBucketIterator)(unsafe.Pointer(keep(&buckets{p.ListBuckets(ctx, wanted), cancel})))
}

//export uplink_bucket_iterator_next
func uplink_bucket_iterator_next(handle *C.UplinkBucketIterator) C.bool {
	listing, err := at[*buckets](unsafe.Pointer(handle))
	return C.bool(err == nil && listing.Next())
}

//export uplink_bucket_iterator_err
func uplink_bucket_iterator_err(handle *C.UplinkBucketIterator) *C.UplinkError {
	return iteratorError[*buckets](unsafe.Pointer(handle))
}

//export uplink_bucket_iterator_item
func uplink_bucket_iterator_item(handle *C.UplinkBucketIterator) *C.UplinkBucket {
	if listing, err := at[*buckets](unsafe.Pointer(handle)); err == nil && listing.Item() != nil {
		return cBucket(listing.Item())
	}
	return nil
}

func iteratorError[T interface{ Err() error }](handle unsafe.Pointer) *C.UplinkError {
	if listing, err := at[T](handle); err == nil {
		return failure(listing.Err())
	}
	if refused, err := at[error](handle); err == nil {
		return failure(refused)
	}
	return failure(errHandle)
}

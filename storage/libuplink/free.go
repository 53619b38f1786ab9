package main

/*
#include <stdlib.h>
#include "uplink.h"
*/
import "C"

import "unsafe"

// uplink_internal_UniverseIsEmpty tells whether everything was freed.
//
//export uplink_internal_UniverseIsEmpty
func uplink_internal_UniverseIsEmpty() C.bool {
	table.Lock()
	defer table.Unlock()
	return C.bool(len(table.values) == 0)
}

//export uplink_free_error
func uplink_free_error(err *C.UplinkError) {
	if err != nil {
		C.free(unsafe.Pointer(err.message))
		C.free(unsafe.Pointer(err))
	}
}

//export uplink_free_string_result
func uplink_free_string_result(result C.UplinkStringResult) {
	uplink_free_error(result.error)
	C.free(unsafe.Pointer(result.string))
}

//export uplink_free_access_result
func uplink_free_access_result(result C.UplinkAccessResult) {
	uplink_free_error(result.error)
	drop(unsafe.Pointer(result.access))
}

//export uplink_free_encryption_key_result
func uplink_free_encryption_key_result(result C.UplinkEncryptionKeyResult) {
	uplink_free_error(result.error)
	drop(unsafe.Pointer(result.encryption_key))
}

//export uplink_free_project_result
func uplink_free_project_result(result C.UplinkProjectResult) {
	uplink_free_error(result.error)
	if p, ok := drop(unsafe.Pointer(result.project)).(*project); ok {
		p.cancel()
		_ = p.Close()
	}
}

//export uplink_free_bucket
func uplink_free_bucket(bucket *C.UplinkBucket) {
	if bucket != nil {
		C.free(unsafe.Pointer(bucket.name))
		C.free(unsafe.Pointer(bucket))
	}
}

//export uplink_free_bucket_result
func uplink_free_bucket_result(result C.UplinkBucketResult) {
	uplink_free_error(result.error)
	uplink_free_bucket(result.bucket)
}

//export uplink_free_object
func uplink_free_object(object *C.UplinkObject) {
	if object == nil {
		return
	}
	for _, entry := range unsafe.Slice(object.custom.entries, object.custom.count) {
		C.free(unsafe.Pointer(entry.key))
		C.free(unsafe.Pointer(entry.value))
	}
	C.free(unsafe.Pointer(object.custom.entries))
	C.free(unsafe.Pointer(object.key))
	C.free(unsafe.Pointer(object))
}

//export uplink_free_object_result
func uplink_free_object_result(result C.UplinkObjectResult) {
	uplink_free_error(result.error)
	uplink_free_object(result.object)
}

//export uplink_free_object_iterator
func uplink_free_object_iterator(handle *C.UplinkObjectIterator) {
	if listing, ok := drop(unsafe.Pointer(handle)).(*objects); ok {
		listing.cancel()
	}
}

//export uplink_free_bucket_iterator
func uplink_free_bucket_iterator(handle *C.UplinkBucketIterator) {
	if listing, ok := drop(unsafe.Pointer(handle)).(*buckets); ok {
		listing.cancel()
	}
}

//export uplink_free_upload_result
func uplink_free_upload_result(result C.UplinkUploadResult) {
	uplink_free_error(result.error)
	if up, ok := drop(unsafe.Pointer(result.upload)).(*upload); ok {
		up.cancel()
	}
}

//export uplink_free_download_result
func uplink_free_download_result(result C.UplinkDownloadResult) {
	uplink_free_error(result.error)
	if down, ok := drop(unsafe.Pointer(result.download)).(*download); ok {
		down.cancel()
	}
}

//export uplink_free_write_result
func uplink_free_write_result(result C.UplinkWriteResult) { uplink_free_error(result.error) }

//export uplink_free_read_result
func uplink_free_read_result(result C.UplinkReadResult) { uplink_free_error(result.error) }

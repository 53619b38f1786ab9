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

type (
	upload   = transfer[*uplink.Upload]
	download = transfer[*uplink.Download]
)

//export uplink_upload_object
func uplink_upload_object(handle *C.UplinkProject, bucket, key *C.uplink_const_char, options *C.UplinkUploadOptions) (result C.UplinkUploadResult) {
	p, err := at[*project](unsafe.Pointer(handle))
	if err != nil {
		result.error = failure(err)
		return result
	}
	wanted := &uplink.UploadOptions{}
	if options != nil {
		wanted.Expires = moment(options.expires)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	begun, err := p.UploadObject(ctx, C.GoString(bucket), C.GoString(key), wanted)
	if err != nil {
		cancel()
		result.error = failure(err)
		return result
	}
	result.upload = (*C.UplinkUpload)(unsafe.Pointer(keep(&upload{begun, cancel})))
	return result
}

//export uplink_upload_write
func uplink_upload_write(handle *C.UplinkUpload, bytes unsafe.Pointer, length C.size_t) (result C.UplinkWriteResult) {
	up, err := at[*upload](unsafe.Pointer(handle))
	n := 0
	if err == nil && length > 0 {
		n, err = up.of.Write(unsafe.Slice((*byte)(bytes), int(length)))
	}
	result.bytes_written, result.error = C.size_t(n), failure(err)
	return result
}

//export uplink_upload_commit
func uplink_upload_commit(handle *C.UplinkUpload) *C.UplinkError {
	up, err := at[*upload](unsafe.Pointer(handle))
	if err == nil {
		err = up.of.Commit()
	}
	return failure(err)
}

//export uplink_upload_abort
func uplink_upload_abort(handle *C.UplinkUpload) *C.UplinkError {
	up, err := at[*upload](unsafe.Pointer(handle))
	if err == nil {
		err = up.of.Abort()
	}
	return failure(err)
}

//export uplink_upload_info
func uplink_upload_info(handle *C.UplinkUpload) C.UplinkObjectResult {
	up, err := at[*upload](unsafe.Pointer(handle))
	if err != nil {
		return objectResult(nil, err)
	}
	return objectResult(up.of.Info(), nil)
}

//export uplink_upload_set_custom_metadata
func uplink_upload_set_custom_metadata(handle *C.UplinkUpload, custom C.UplinkCustomMetadata) *C.UplinkError {
	up, err := at[*upload](unsafe.Pointer(handle))
	if err != nil {
		return failure(err)
	}
	values := uplink.CustomMetadata{}
	for _, entry := range unsafe.Slice(custom.entries, custom.count) {
		values[C.GoStringN(entry.key, C.int(entry.key_length))] = C.GoStringN(entry.value, C.int(entry.value_length))
	}
	return failure(up.of.SetCustomMetadata(context.Background(), values))
}

//export uplink_download_object
func uplink_download_object(handle *C.UplinkProject, bucket, key *C.uplink_const_char, options *C.UplinkDownloadOptions) (result C.UplinkDownloadResult) {
	p, err := at[*project](unsafe.Pointer(handle))
	if err != nil {
		result.error = failure(err)
		return result
	}
	wanted := &uplink.DownloadOptions{Length: -1}
	if options != nil {
		wanted.Offset, wanted.Length = int64(options.offset), int64(options.length)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	begun, err := p.DownloadObject(ctx, C.GoString(bucket), C.GoString(key), wanted)
	if err != nil {
		cancel()
		result.error = failure(err)
		return result
	}
	result.download = (*C.UplinkDownload)(unsafe.Pointer(keep(&download{begun, cancel})))
	return result
}

//export uplink_download_read
func uplink_download_read(handle *C.UplinkDownload, bytes unsafe.Pointer, length C.size_t) (result C.UplinkReadResult) {
	down, err := at[*download](unsafe.Pointer(handle))
	n := 0
	if err == nil && length > 0 {
		n, err = down.of.Read(unsafe.Slice((*byte)(bytes), int(length)))
	}
	result.bytes_read, result.error = C.size_t(n), failure(err)
	return result
}

//export uplink_download_info
func uplink_download_info(handle *C.UplinkDownload) C.UplinkObjectResult {
	down, err := at[*download](unsafe.Pointer(handle))
	if err != nil {
		return objectResult(nil, err)
	}
	return objectResult(down.of.Info(), nil)
}

//export uplink_close_download
func uplink_close_download(handle *C.UplinkDownload) *C.UplinkError {
	down, err := at[*download](unsafe.Pointer(handle))
	if err == nil {
		err = down.of.Close()
	}
	return failure(err)
}

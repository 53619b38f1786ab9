// Storj's Go library behind a C interface, for programs that cannot speak Go.
package main

/*
#include <stdlib.h>
#include "uplink.h"
*/
import "C"

import (
	"context"
	"time"
	"unsafe"

	"storj.io/uplink"
	"storj.io/uplink/private/testuplink"
)

func main() {}

// Storj's library holds a segment in memory until its last piece has arrived; left to itself that is up to ten of 64 MiB
// for one upload. Smaller ones cost a little more per object (docs/storage.md).
const (
	segmentSize    = 24 << 20
	segmentsAtOnce = 1
)

// thrifty is a context for a project whose uploads take little memory.
func thrifty(ctx context.Context) context.Context {
	config := testuplink.DefaultConcurrentSegmentUploadsConfig()
	config.SchedulerOptions.MaximumConcurrentHandles = segmentsAtOnce
	return testuplink.WithConcurrentSegmentUploadsConfig(testuplink.WithMaxSegmentSize(ctx, segmentSize), config)
}

func accessResult(access *uplink.Access, err error) (result C.UplinkAccessResult) {
	if result.error = failure(err); err == nil {
		result.access = (*C.UplinkAccess)(unsafe.Pointer(keep(access)))
	}
	return result
}

func goConfig(config C.UplinkConfig) uplink.Config {
	return uplink.Config{
		UserAgent:   C.GoString(config.user_agent),
		DialTimeout: time.Duration(config.dial_timeout_milliseconds) * time.Millisecond, //nolint:staticcheck // part of the C interface
	}
}

//export uplink_parse_access
func uplink_parse_access(text *C.uplink_const_char) C.UplinkAccessResult {
	return accessResult(uplink.ParseAccess(C.GoString(text)))
}

//export uplink_request_access_with_passphrase
func uplink_request_access_with_passphrase(satellite, apiKey, passphrase *C.uplink_const_char) C.UplinkAccessResult {
	return uplink_config_request_access_with_passphrase(C.UplinkConfig{}, satellite, apiKey, passphrase)
}

//export uplink_config_request_access_with_passphrase
func uplink_config_request_access_with_passphrase(config C.UplinkConfig, satellite, apiKey, passphrase *C.uplink_const_char) C.UplinkAccessResult {
	return accessResult(goConfig(config).RequestAccessWithPassphrase(
		context.Background(), C.GoString(satellite), C.GoString(apiKey), C.GoString(passphrase)))
}

//export uplink_access_satellite_address
func uplink_access_satellite_address(access *C.UplinkAccess) (result C.UplinkStringResult) {
	known, err := at[*uplink.Access](unsafe.Pointer(access))
	if result.error = failure(err); err == nil {
		result.string = C.CString(known.SatelliteAddress())
	}
	return result
}

//export uplink_access_serialize
func uplink_access_serialize(access *C.UplinkAccess) (result C.UplinkStringResult) {
	known, err := at[*uplink.Access](unsafe.Pointer(access))
	text := ""
	if err == nil {
		text, err = known.Serialize()
	}
	if result.error = failure(err); err == nil {
		result.string = C.CString(text)
	}
	return result
}

//export uplink_access_share
func uplink_access_share(access *C.UplinkAccess, permission C.UplinkPermission, prefixes *C.UplinkSharePrefix, count C.size_t) C.UplinkAccessResult {
	return fednode_access_share(access, permission, prefixes, count, 0)
}

// fednode_access_share also limits how long objects written with the new grant may live, in seconds; 0 = no limit.
//
//export fednode_access_share
func fednode_access_share(access *C.UplinkAccess, permission C.UplinkPermission, prefixes *C.UplinkSharePrefix, count C.size_t, maxObjectTTL C.int64_t) C.UplinkAccessResult {
	known, err := at[*uplink.Access](unsafe.Pointer(access))
	if err != nil {
		return accessResult(nil, err)
	}
	allowed := uplink.Permission{
		AllowDownload: bool(permission.allow_download), AllowUpload: bool(permission.allow_upload),
		AllowList: bool(permission.allow_list), AllowDelete: bool(permission.allow_delete),
		NotBefore: moment(permission.not_before), NotAfter: moment(permission.not_after),
	}
	if maxObjectTTL > 0 {
		ttl := time.Duration(maxObjectTTL) * time.Second
		allowed.MaxObjectTTL = &ttl
	}
	shared := make([]uplink.SharePrefix, 0, count)
	for _, one := range unsafe.Slice(prefixes, count) {
		shared = append(shared, uplink.SharePrefix{Bucket: C.GoString(one.bucket), Prefix: C.GoString(one.prefix)})
	}
	return accessResult(known.Share(allowed, shared...))
}

//export uplink_derive_encryption_key
func uplink_derive_encryption_key(passphrase *C.uplink_const_char, salt unsafe.Pointer, length C.size_t) (result C.UplinkEncryptionKeyResult) {
	key, err := uplink.DeriveEncryptionKey(C.GoString(passphrase), C.GoBytes(salt, C.int(length)))
	if result.error = failure(err); err == nil {
		result.encryption_key = (*C.UplinkEncryptionKey)(unsafe.Pointer(keep(key)))
	}
	return result
}

//export uplink_access_override_encryption_key
func uplink_access_override_encryption_key(access *C.UplinkAccess, bucket, prefix *C.uplink_const_char, key *C.UplinkEncryptionKey) *C.UplinkError {
	known, err := at[*uplink.Access](unsafe.Pointer(access))
	if err != nil {
		return failure(err)
	}
	secret, err := at[*uplink.EncryptionKey](unsafe.Pointer(key))
	if err != nil {
		return failure(err)
	}
	return failure(known.OverrideEncryptionKey(C.GoString(bucket), C.GoString(prefix), secret))
}

//export uplink_open_project
func uplink_open_project(access *C.UplinkAccess) C.UplinkProjectResult {
	return uplink_config_open_project(C.UplinkConfig{}, access)
}

//export uplink_config_open_project
func uplink_config_open_project(config C.UplinkConfig, access *C.UplinkAccess) (result C.UplinkProjectResult) {
	known, err := at[*uplink.Access](unsafe.Pointer(access))
	if err != nil {
		result.error = failure(err)
		return result
	}
	ctx, cancel := context.WithCancel(thrifty(context.Background()))
	opened, err := goConfig(config).OpenProject(ctx, known)
	if err != nil {
		cancel()
		result.error = failure(err)
		return result
	}
	result.project = (*C.UplinkProject)(unsafe.Pointer(keep(&project{opened, ctx, cancel})))
	return result
}

// uplink_close_project ends at once whatever is going on in it.
//
//export uplink_close_project
func uplink_close_project(handle *C.UplinkProject) *C.UplinkError {
	if handle == nil {
		return nil
	}
	p, err := at[*project](unsafe.Pointer(handle))
	if err != nil {
		return failure(err)
	}
	p.cancel()
	return failure(p.Close())
}

// uplink_revoke_access kills a grant that came from this project's own, and every grant made from it.
//
//export uplink_revoke_access
func uplink_revoke_access(handle *C.UplinkProject, access *C.UplinkAccess) *C.UplinkError {
	p, err := at[*project](unsafe.Pointer(handle))
	if err != nil {
		return failure(err)
	}
	known, err := at[*uplink.Access](unsafe.Pointer(access))
	if err != nil {
		return failure(err)
	}
	return failure(p.RevokeAccess(p.ctx, known))
}

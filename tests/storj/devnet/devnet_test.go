// Package devnet is a Storj network for tests: one satellite and its storage nodes in one process on 127.0.0.1.
//
// It is a Go test because testplanet can only run inside one; `go test -c` makes an ordinary program of it. It is told by
// its environment where to write (DEVNET_OUT) and where to listen for commands (DEVNET_CONTROL), and ends when its
// standard input closes, on SIGTERM or on SIGINT.
//
// The module is a test tool of its own: it requires storj.io/storj, which is under the AGPL, and nothing of fednode is
// linked with it.
package devnet

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"storj.io/common/memory"
	"storj.io/common/testcontext"
	"storj.io/storj/private/testplanet"
	"storj.io/storj/satellite"
	"storj.io/storj/storagenode"
	"storj.io/uplink"
)

const (
	storageNodes = 4
	projects     = 3
	nodeDisk     = 4 * memory.GB
	maxBuckets   = 100
)

// project is one customer's account: what he needs to reach his buckets.
type project struct {
	APIKey     string `json:"api_key"`
	Passphrase string `json:"passphrase"`
	Grant      string `json:"grant"`
}

// network is what the file DEVNET_OUT says.
type network struct {
	PID       int       `json:"pid"`
	Satellite string    `json:"satellite"`
	Nodes     []string  `json:"nodes"`
	Projects  []project `json:"projects"`
}

func TestDevnet(t *testing.T) {
	out, control := os.Getenv("DEVNET_OUT"), os.Getenv("DEVNET_CONTROL")
	if out == "" || control == "" {
		t.Fatal("DEVNET_OUT and DEVNET_CONTROL must name a file to write and a socket to make")
	}
	assets := placeholders(t)
	testplanet.Run(t, testplanet.Config{
		SatelliteCount: 1, StorageNodeCount: storageNodes, UplinkCount: projects,
		NonParallel: true,
		Timeout:     -1, // 0 would mean three minutes
		Reconfigure: testplanet.Reconfigure{
			Satellite: func(_ *zap.Logger, _ int, config *satellite.Config) {
				config.Server.UsePeerCAWhitelist = false // clients from outside have other certificates
				config.Mail.TemplatePath = assets
				config.Console.StaticDir = assets
				config.Metainfo.ProjectLimits.MaxBuckets = maxBuckets
				// Any two of at least three pieces are the segment, so one storage node may die.
				testplanet.ReconfigureRS(2, 2, 3, storageNodes)(nil, 0, config)
			},
			StorageNode: func(_ int, config *storagenode.Config) {
				config.Server.UsePeerCAWhitelist = false
				config.Storage.AllocatedDiskSpace = nodeDisk
			},
			SatelliteDBOptions: testplanet.SatelliteDBDisableCaches, // a revocation acts at once
		},
	}, func(t *testing.T, ctx *testcontext.Context, planet *testplanet.Planet) {
		if err := serve(ctx, planet, out, control); err != nil {
			t.Fatal(err)
		}
	})
}

// placeholders is a folder with the templates that the satellite reads at its start, so that the program does not need
// the module cache it was built from.
func placeholders(t *testing.T) string {
	folder := t.TempDir()
	for _, name := range []string{"empty.html", "empty.txt"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func serve(ctx context.Context, planet *testplanet.Planet, out, control string) error {
	ended, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	described, err := describe(ctx, planet)
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", control)
	if err != nil {
		return err
	}
	go func() {
		<-ended.Done()
		_ = listener.Close()
	}()
	if err := publish(out, described); err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			if ended.Err() != nil {
				return nil
			}
			return err
		}
		answer(planet, connection)
	}
}

func describe(ctx context.Context, planet *testplanet.Planet) (network, error) {
	described := network{PID: os.Getpid(), Satellite: planet.Satellites[0].URL()}
	for _, node := range planet.StorageNodes {
		described.Nodes = append(described.Nodes, node.Addr())
	}
	for _, customer := range planet.Uplinks {
		made := project{
			APIKey:     customer.APIKey[planet.Satellites[0].ID()].Serialize(),
			Passphrase: rand.Text(),
		}
		access, err := uplink.RequestAccessWithPassphrase(ctx, described.Satellite, made.APIKey, made.Passphrase)
		if err != nil {
			return network{}, err
		}
		if made.Grant, err = access.Serialize(); err != nil {
			return network{}, err
		}
		described.Projects = append(described.Projects, made)
	}
	return described, nil
}

// publish writes the file under another name first: it is whole or absent.
func publish(path string, described network) error {
	content, err := json.Marshal(described)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// answer does the one command of a connection and says "ok" or why not.
func answer(planet *testplanet.Planet, connection net.Conn) {
	defer func() { _ = connection.Close() }()
	line, err := bufio.NewReader(io.LimitReader(connection, 256)).ReadString('\n')
	if err == nil {
		err = obey(planet, strings.TrimSpace(line))
	}
	if err != nil {
		_, _ = fmt.Fprintf(connection, "error: %v\n", err)
		return
	}
	_, _ = fmt.Fprintln(connection, "ok")
}

// obey stops one storage node; the satellite is not told, it finds out like any other.
func obey(planet *testplanet.Planet, line string) error {
	var index int
	if _, err := fmt.Sscanf(line, "stop-node %d", &index); err != nil {
		return fmt.Errorf("%q is not a command; there is: stop-node N", line)
	}
	if index < 0 || index >= len(planet.StorageNodes) {
		return fmt.Errorf("there are storage nodes 0 to %d", len(planet.StorageNodes)-1)
	}
	err := planet.StopPeer(planet.StorageNodes[index])
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

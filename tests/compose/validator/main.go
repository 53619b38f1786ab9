// Command validator accepts or refuses compose files as `docker compose config` does.
//
//	validator FILE...
//
// It prints one line for each file, "ok FILE" or "bad FILE: why", and ends with status 1 where one is refused. Variables
// are taken from the environment.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
)

func check(path string) error {
	options, err := cli.NewProjectOptions(
		[]string{path},
		cli.WithOsEnv,
		cli.WithWorkingDirectory(filepath.Dir(path)),
	)
	if err != nil {
		return err
	}
	_, err = options.LoadProject(context.Background())
	return err
}

func main() {
	status := 0
	for _, path := range os.Args[1:] {
		if err := check(path); err != nil {
			fmt.Printf("bad %s: %s\n", path, strings.ReplaceAll(err.Error(), "\n", " "))
			status = 1
		} else {
			fmt.Printf("ok %s\n", path)
		}
	}
	os.Exit(status)
}

package mapreduce

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"millrace/jobs/local"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// localFlags is what follows --local.
type localFlags struct {
	local.Config
	json       bool
	properties map[string]string
}

// parseLocal reads what follows --local: flags and paths in any order, then the
// program's own arguments after "--".
func parseLocal(args []string) (c localFlags, programArgs []string, err error) {
	c.Spec = &api.JobSpec{}
	var paths []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			programArgs = args
			break
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			paths = append(paths, arg)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !given && (name == "overwrite" || name == "json") {
			value, given = "true", true
		}
		if !given {
			if len(args) == 0 {
				return c, nil, fmt.Errorf("%s needs a value", arg)
			}
			value, args = args[0], args[1:]
		}
		if err := setFlag(&c, name, value); err != nil {
			return c, nil, err
		}
	}
	if len(paths) < 2 {
		return c, nil, fmt.Errorf("--local needs an INPUT and an OUTPUT")
	}
	c.Spec.Input, c.Spec.Output = paths[:len(paths)-1], paths[len(paths)-1]
	return c, programArgs, nil
}

func setFlag(c *localFlags, name, value string) error {
	switch name {
	case "reduces":
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 0 {
			return fmt.Errorf("--reduces %s: want a number from 0", value)
		}
		reduces := int32(n)
		c.Spec.Reduces = &reduces
	case "split-size":
		n, err := humanize.ParseBytes(value)
		if err != nil || n == 0 || n > 1<<50 {
			return fmt.Errorf("--split-size %s: want a size such as 64MiB", value)
		}
		c.Spec.SplitSize = int64(n)
	case "parallel":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return fmt.Errorf("--parallel %s: want a number from 1", value)
		}
		c.Parallel = n
	case "compress":
		switch value {
		case "none", "gzip", "zstd":
			c.Spec.Compress = value
		default:
			return fmt.Errorf("--compress %s: want gzip, zstd or none", value)
		}
	case "overwrite":
		yes, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("--overwrite %s: want true or false", value)
		}
		c.Spec.Overwrite = yes
	case "json":
		yes, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("--json %s: want true or false", value)
		}
		c.json = yes
	case "memory":
		n, err := humanize.ParseBytes(value)
		if err != nil || n == 0 || n > 1<<50 {
			return fmt.Errorf("--memory %s: want a size such as 512MiB", value)
		}
		c.Spec.MemoryBytes = int64(n)
	case "max-record":
		n, err := humanize.ParseBytes(value)
		if err != nil || n == 0 || n > 1<<50 {
			return fmt.Errorf("--max-record %s: want a size such as 64MiB", value)
		}
		c.Spec.MaxRecordBytes = int64(n)
	case "D":
		key, property, ok := strings.Cut(value, "=")
		if !ok || key == "" {
			return fmt.Errorf("-D %s: want KEY=VALUE", value)
		}
		if c.properties == nil {
			c.properties = map[string]string{}
		}
		c.properties[key] = property
	case "file":
		path, as, ok := strings.Cut(value, "#")
		if !ok {
			as = filepath.Base(path)
		}
		c.Files = append(c.Files, local.File{Name: as, Path: path})
	default:
		return fmt.Errorf("--%s is not a flag of --local", name)
	}
	return nil
}

// storeFor opens the object store that the environment names, if the job needs one.
func storeFor(s *api.JobSpec) (objectstore.Store, error) {
	needed := false
	for _, path := range append([]string{s.Output}, s.Input...) {
		scheme, _, ok := strings.Cut(path, "://")
		needed = needed || ok && scheme != "file"
	}
	if !needed {
		return nil, nil
	}
	first := func(names ...string) string {
		for _, n := range names {
			if v := os.Getenv(n); v != "" {
				return v
			}
		}
		return ""
	}
	c := objectstore.Config{
		Endpoint:     first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
		Region:       first("AWS_REGION", "AWS_DEFAULT_REGION"),
		AccessKey:    os.Getenv("AWS_ACCESS_KEY_ID"),
		SecretKey:    os.Getenv("AWS_SECRET_ACCESS_KEY"),
		SessionToken: os.Getenv("AWS_SESSION_TOKEN"),
	}
	if c.Endpoint == "" {
		return nil, fmt.Errorf(`no object store is named: set AWS_ENDPOINT_URL and the key (eval "$(millrace context env)" does)`)
	}
	if path := os.Getenv("AWS_CA_BUNDLE"); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("AWS_CA_BUNDLE: %w", err)
		}
		c.CAPEM = string(pem)
	}
	return objectstore.NewS3(c)
}

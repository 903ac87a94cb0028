package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"millrace/pkg/objectstore"
)

// buckets reads arguments that must each name a bucket and nothing below it.
func (c *call) buckets() ([]string, error) {
	var out []string
	for _, s := range c.args {
		if !strings.Contains(s, "://") {
			s = "s3://" + s
		}
		p, err := c.place(s)
		if err != nil {
			return nil, err
		}
		if p.Bucket == "" || p.Path != "" || objectstore.IsHDFS(p.Bucket) {
			return nil, usagef("write s3://BUCKET", "%s is not a bucket", s)
		}
		out = append(out, p.Bucket)
	}
	return out, nil
}

func fsMakeBucket(c *call) error {
	names, err := c.buckets()
	if err != nil {
		return err
	}
	s, err := c.openStore()
	if err != nil {
		return err
	}
	made := []string{}
	for _, b := range names {
		err := s.MakeBucket(c.Context.Context, b)
		if errors.Is(err, objectstore.ErrExists) && !c.json {
			fmt.Fprintf(c.env.Stderr, "s3://%s is there already\n", b)
		}
		if err != nil && !errors.Is(err, objectstore.ErrExists) {
			return err
		}
		made = append(made, "s3://"+b)
	}
	return c.print(map[string][]string{"buckets": made}, func(io.Writer) {})
}

func fsRemoveBucket(c *call) error {
	names, err := c.buckets()
	if err != nil {
		return err
	}
	s, err := c.openStore()
	if err != nil {
		return err
	}
	for _, b := range names {
		for range s.List(c.Context.Context, b, "", objectstore.ListOptions{Max: 1}) {
			if ok, err := s.BucketExists(c.Context.Context, b); err == nil && ok {
				return faultf(exitFailed, "millrace fs rm -r s3://"+b+"/", "the bucket s3://%s is not empty", b)
			}
		}
		err := s.RemoveBucket(c.Context.Context, b)
		if errors.Is(err, objectstore.ErrNoSuchBucket) {
			return faultf(exitNotFound, "millrace fs ls", "there is no bucket s3://%s", b)
		}
		if err != nil {
			return err
		}
	}
	return c.print(map[string]int{"removed": len(names)}, func(io.Writer) {})
}

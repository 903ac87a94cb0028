package checker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Store is the object store, read past every proxy.
type Store struct{ c *minio.Core }

// OpenStore makes a client of the store at host:port; it sends nothing.
func OpenStore(address, key, secret string) (*Store, error) {
	c, err := minio.NewCore(address, &minio.Options{Creds: credentials.NewStaticV4(key, secret, ""), Region: "us-east-1"})
	if err != nil {
		return nil, fmt.Errorf("client of the store at %s: %w", address, err)
	}
	return &Store{c}, nil
}

// Ready says whether the store answers.
func (s *Store) Ready(ctx context.Context) error {
	_, err := s.c.ListBuckets(ctx)
	return err
}

// MakeBucket makes a bucket.
func (s *Store) MakeBucket(ctx context.Context, bucket string) error {
	return s.c.MakeBucket(ctx, bucket, minio.MakeBucketOptions{Region: "us-east-1"})
}

// PutInput stores the objects of an input.
func (s *Store) PutInput(ctx context.Context, bucket string, in Input) error {
	for key, content := range in.Objects {
		if _, err := s.c.Client.PutObject(ctx, bucket, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{}); err != nil {
			return fmt.Errorf("put %s/%s: %w", bucket, key, err)
		}
	}
	return nil
}

// Glimpse looks at what lies below a prefix.
func (s *Store) Glimpse(ctx context.Context, bucket, prefix string) (Glimpse, error) {
	g := Glimpse{Prefix: prefix}
	before, err := s.get(ctx, bucket, prefix+"_SUCCESS")
	if err != nil {
		return g, err
	}
	for o := range s.c.Client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return g, fmt.Errorf("list %s/%s: %w", bucket, prefix, o.Err)
		}
		g.Objects = append(g.Objects, Object{o.Key, o.Size, o.ETag})
	}
	after, err := s.get(ctx, bucket, prefix+"_SUCCESS")
	if err != nil {
		return g, err
	}
	g.Steady = bytes.Equal(before, after)
	if before != nil {
		g.Manifest = &Manifest{}
		if err := json.Unmarshal(before, g.Manifest); err != nil {
			return g, fmt.Errorf("read %s/%s_SUCCESS: %w", bucket, prefix, err)
		}
	}
	return g, nil
}

// Read reads the parts that a manifest names, in its order. A part that is not there is empty.
func (s *Store) Read(ctx context.Context, bucket string, m Manifest) ([][]byte, error) {
	var parts [][]byte
	for _, p := range m.Parts {
		data, err := s.get(ctx, bucket, p.Key)
		if err != nil {
			return nil, err
		}
		parts = append(parts, data)
	}
	return parts, nil
}

// get reads an object; nil if there is none.
func (s *Store) get(ctx context.Context, bucket, key string) ([]byte, error) {
	body, _, _, err := s.c.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %s/%s: %w", bucket, key, err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("get %s/%s: %w", bucket, key, err)
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}

func missing(err error) bool { return err != nil && minio.ToErrorResponse(err).Code == minio.NoSuchKey }

// Upload is one that is neither completed nor aborted.
type Upload struct {
	Key, ID string
	Parts   int
	Begun   time.Time
}

func (u Upload) String() string {
	return fmt.Sprintf("%s: upload %s with %d parts, begun %s", u.Key, u.ID, u.Parts, u.Begun.UTC().Format("15:04:05.000"))
}

// endTakes is how long the end of a job may take after its last look for uploads that nobody knows: three requests, each held up for 3 s.
const endTakes = 10 * time.Second

// Stray says whether an upload may be of a request that a master sent before it was killed, and that was carried out after the last look for
// such uploads, with which the end of a job begins: jobs that write its key have all ended, one of them just then, and nothing is in it.
func (u Upload) Stray(jobs []Status) bool {
	all := !slices.ContainsFunc(jobs, func(j Status) bool { return j.SubmittedAt == nil || j.EndedAt == nil })
	return all && u.Parts == 0 && slices.ContainsFunc(jobs, func(j Status) bool {
		return u.Begun.After(*j.SubmittedAt) && u.Begun.After(j.EndedAt.Add(-endTakes)) && u.Begun.Before(*j.EndedAt)
	})
}

// Late says whether an upload may be there, of jobs that write its key and have all ended: a request for one that a master sent before it was
// killed, and that the network delivered when no such job ran any more, cannot be taken back. Nothing can be in it.
func (u Upload) Late(jobs []Status) bool {
	for _, j := range jobs {
		if j.SubmittedAt == nil || j.EndedAt == nil || u.Begun.After(*j.SubmittedAt) && u.Begun.Before(*j.EndedAt) {
			return false
		}
	}
	return u.Parts == 0 && slices.ContainsFunc(jobs, func(j Status) bool { return !u.Begun.Before(*j.EndedAt) })
}

// Unfinished lists the uploads of a key that are neither completed nor aborted. A MinIO that was
// killed in the midst of completing one may list it on and deny that it is there: that holds nothing, and does not count.
func (s *Store) Unfinished(ctx context.Context, bucket, key string) (left []Upload, err error) {
	found, err := s.c.ListMultipartUploads(ctx, bucket, key, "", "", "", 1000)
	if err != nil {
		return nil, fmt.Errorf("list the uploads of %s/%s: %w", bucket, key, err)
	}
	for _, u := range found.Uploads {
		parts, err := s.c.ListObjectParts(ctx, bucket, u.Key, u.UploadID, 0, 1000)
		if err != nil && minio.ToErrorResponse(err).Code == minio.NoSuchUpload {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the parts of an upload of %s/%s: %w", bucket, u.Key, err)
		}
		left = append(left, Upload{Key: u.Key, ID: u.UploadID, Parts: len(parts.ObjectParts), Begun: u.Initiated})
	}
	return left, nil
}

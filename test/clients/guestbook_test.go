package clients

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/conversion"
)

// The operator's kind in two versions, as kubebuilder lays them out: in v1 entries are lines of one text, in v2, which is stored, a list.
var (
	guestbookV1 = schema.GroupVersion{Group: "guests.example.com", Version: "v1"}
	guestbookV2 = schema.GroupVersion{Group: "guests.example.com", Version: "v2"}
)

type guestbookStatus struct {
	Entries int    `json:"entries,omitempty"`
	Phase   string `json:"phase,omitempty"`
}

// oldGuestbook is version v1.
type oldGuestbook struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Text string `json:"text,omitempty"`
	} `json:"spec,omitempty"`
	Status guestbookStatus `json:"status,omitempty"`
}

// guestbook is version v2.
type guestbook struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Entries []string `json:"entries,omitempty"`
		Title   string   `json:"title,omitempty"`
	} `json:"spec,omitempty"`
	Status guestbookStatus `json:"status,omitempty"`
}

type guestbookList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []guestbook `json:"items"`
}

func (g *guestbook) Hub() {}

func (g *guestbook) DeepCopyObject() runtime.Object {
	out := *g
	out.ObjectMeta = *g.ObjectMeta.DeepCopy()
	out.Spec.Entries = append([]string(nil), g.Spec.Entries...)
	return &out
}

func (l *guestbookList) DeepCopyObject() runtime.Object {
	out := *l
	out.Items = make([]guestbook, len(l.Items))
	for i := range l.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*guestbook)
	}
	return &out
}

func (g *oldGuestbook) DeepCopyObject() runtime.Object {
	out := *g
	out.ObjectMeta = *g.ObjectMeta.DeepCopy()
	return &out
}

// ConvertTo implements conversion.Convertible.
func (g *oldGuestbook) ConvertTo(hub conversion.Hub) error {
	out, ok := hub.(*guestbook)
	if !ok {
		return fmt.Errorf("the hub is a %T", hub)
	}
	out.ObjectMeta, out.Status = g.ObjectMeta, g.Status
	if g.Spec.Text != "" {
		out.Spec.Entries = strings.Split(g.Spec.Text, "\n")
	}
	return nil
}

// ConvertFrom implements conversion.Convertible.
func (g *oldGuestbook) ConvertFrom(hub conversion.Hub) error {
	in, ok := hub.(*guestbook)
	if !ok {
		return fmt.Errorf("the hub is a %T", hub)
	}
	g.ObjectMeta, g.Status = in.ObjectMeta, in.Status
	g.Spec.Text = strings.Join(in.Spec.Entries, "\n")
	return nil
}

func guestbookScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypeWithName(guestbookV1.WithKind("Guestbook"), &oldGuestbook{})
	s.AddKnownTypeWithName(guestbookV2.WithKind("Guestbook"), &guestbook{})
	s.AddKnownTypeWithName(guestbookV2.WithKind("GuestbookList"), &guestbookList{})
	metav1.AddToGroupVersion(s, guestbookV1)
	metav1.AddToGroupVersion(s, guestbookV2)
	return s
}

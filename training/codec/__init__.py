"""The codecs of an update's elements (protocol.md section 5): bytes to exact integers and back. numpy only."""

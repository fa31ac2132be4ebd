"""The page `try.html`, which runs student.onnx in a browser with onnxruntime-web."""
